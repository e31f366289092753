package postgres

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What the server does to a transaction is never the fault of a record, and what it says about a statement always is. The table has all
// classes of appendix A of PostgreSQL's documentation that an error can have.
func TestTheServersFaultsAreNotTheRecords(t *testing.T) {
	const servers, records = true, false
	for _, c := range []struct {
		code  string
		fault bool
		what  string
	}{
		{"03000", records, "sql_statement_not_yet_complete"},
		{"08000", servers, "connection_exception"},
		{"08006", servers, "connection_failure"},
		{"08P01", servers, "protocol_violation"},
		{"09000", records, "triggered_action_exception"},
		{"0A000", records, "feature_not_supported"},
		{"0B000", records, "invalid_transaction_initiation"},
		{"20000", records, "case_not_found"},
		{"21000", records, "cardinality_violation"},
		{"22001", records, "string_data_right_truncation"},
		{"22012", records, "division_by_zero"},
		{"22P02", records, "invalid_text_representation"},
		{"23502", records, "not_null_violation"},
		{"23505", records, "unique_violation"},
		{"23514", records, "check_violation"},
		{"24000", records, "invalid_cursor_state"},
		{"25001", records, "active_sql_transaction"},
		{"25006", servers, "read_only_sql_transaction"},
		{"25P02", records, "in_failed_sql_transaction"},
		{"25P03", servers, "idle_in_transaction_session_timeout"},
		{"25P04", servers, "transaction_timeout"},
		{"26000", servers, "invalid_sql_statement_name"},
		{"27000", records, "triggered_data_change_violation"},
		{"2BP01", records, "dependent_objects_still_exist"},
		{"2D000", records, "invalid_transaction_termination"},
		{"2F005", records, "function_executed_no_return_statement"},
		{"34000", records, "invalid_cursor_name"},
		{"38000", records, "external_routine_exception"},
		{"39000", records, "external_routine_invocation_exception"},
		{"3B001", records, "invalid_savepoint_specification"},
		{"3F000", records, "invalid_schema_name"},
		{"40000", servers, "transaction_rollback"},
		{"40001", servers, "serialization_failure"},
		{"40003", servers, "statement_completion_unknown"},
		{"40P01", servers, "deadlock_detected"},
		{"42501", records, "insufficient_privilege"},
		{"42601", records, "syntax_error"},
		{"42703", records, "undefined_column"},
		{"42P01", records, "undefined_table"},
		{"42P05", servers, "duplicate_prepared_statement"},
		{"44000", records, "with_check_option_violation"},
		{"53000", servers, "insufficient_resources"},
		{"53100", servers, "disk_full"},
		{"53200", servers, "out_of_memory"},
		{"53300", servers, "too_many_connections"},
		{"54000", records, "program_limit_exceeded"},
		{"54001", records, "statement_too_complex"},
		{"55000", records, "object_not_in_prerequisite_state"},
		{"55P03", servers, "lock_not_available"},
		{"57000", servers, "operator_intervention"},
		{"57014", servers, "query_canceled"},
		{"57P01", servers, "admin_shutdown"},
		{"57P02", servers, "crash_shutdown"},
		{"57P03", servers, "cannot_connect_now"},
		{"57P04", servers, "database_dropped"},
		{"57P05", servers, "idle_session_timeout"},
		{"57P99", servers, "one that a later release may add"},
		{"58000", servers, "system_error"},
		{"58030", servers, "io_error"},
		{"72000", servers, "snapshot_too_old"},
		{"F0000", servers, "config_file_error"},
		{"HV00N", servers, "fdw_unable_to_establish_connection"},
		{"HV00R", records, "fdw_table_not_found"},
		{"P0001", records, "raise_exception"},
		{"P0004", records, "assert_failure"},
		{"XX000", servers, "internal_error"},
		{"XX001", servers, "data_corrupted"},
		{"XX002", servers, "index_corrupted"},
	} {
		err := error(&pgconn.PgError{Code: c.code, SeverityUnlocalized: "ERROR"})
		for _, err := range []error{err, fmt.Errorf("insert: %w", err), errors.Join(errors.New("also"), err)} {
			if got := (backend{}).Passing(err); got != c.fault {
				t.Errorf("%s, %s: the server's fault is %v, want %v", c.code, c.what, got, c.fault)
			}
		}
	}
	for what, err := range map[string]error{
		"a plan that a change of the table has invalidated": &pgconn.PgError{Code: "0A000", Routine: "RevalidateCachedQuery", SeverityUnlocalized: "ERROR"},
		"an error that ended the connection":                &pgconn.PgError{Code: "42000", SeverityUnlocalized: "FATAL"},
		"a crash of the server":                             &pgconn.PgError{Code: "P0001", SeverityUnlocalized: "PANIC"},
		"a connection that the store lost":                  &brokenError{io.ErrUnexpectedEOF},
	} {
		if !(backend{}).Passing(fmt.Errorf("insert: %w", err)) {
			t.Errorf("%s is blamed on the record", what)
		}
	}
	for what, err := range map[string]error{
		"an error of the handler":         errors.New("no such account"),
		"a connection that a record made": fmt.Errorf("dial: %w", io.EOF),
		"no error":                        nil,
	} {
		if (backend{}).Passing(err) {
			t.Errorf("%s is blamed on the server", what)
		}
	}
}
