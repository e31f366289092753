package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/thalo-go/es"
)

// SQLSTATEs that the store acts on. Source: appendix A of PostgreSQL's documentation; ES... are our own (migrations/001.sql).
const (
	wrongIsolation        = "ES001"
	invalidStatementName  = "26000"
	duplicateStatement    = "42P05"
	undefinedTable        = "42P01"
	undefinedFunction     = "42883"
	invalidSchemaName     = "3F000"
	insufficientPrivilege = "42501"
	readOnlyTransaction   = "25006"
	insufficientResources = "53" // a class
	diskFull              = "53100"
	tooManyConnections    = "53300"
	queryCanceled         = "57014"
	lockNotAvailable      = "55P03"
	deadlockDetected      = "40P01"
	serializationFailure  = "40001"
	idleInTransaction     = "25P03"
	adminShutdown         = "57P01"
	crashShutdown         = "57P02"
	connectionException   = "08" // a class
	cannotConnectNow      = "57P03"
	invalidAuthorization  = "28000"
	invalidPassword       = "28P01"
	invalidCatalogName    = "3D000"
	undefinedObject       = "42704" // a parameter in the URL that the server does not know
	invalidParameterValue = "22023"
)

func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// isRefused tells whether the server itself says that a statement failed, so that nothing of it was written.
// FATAL and PANIC are something else: they end the connection, possibly after the commit.
func isRefused(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.SeverityUnlocalized == "ERROR"
}

// isPassing tells whether what the server says of itself is likely to pass: it is a replica that is yet to be promoted, it has no room,
// somebody holds a lock.
func isPassing(err error) bool {
	switch code := sqlState(err); code {
	case readOnlyTransaction, queryCanceled, lockNotAvailable, deadlockDetected:
		return true
	default:
		return strings.HasPrefix(code, insufficientResources)
	}
}

// hopeless tells whether connecting failed for a reason that time does not mend. A protocol violation (08P01) is not one: with that
// pgbouncer says that its server is away.
func hopeless(err error) bool {
	switch sqlState(err) {
	case invalidAuthorization, invalidPassword, invalidCatalogName, insufficientPrivilege, undefinedObject, invalidParameterValue:
		return true
	}
	var config *pgconn.ParseConfigError
	return errors.As(err, &config)
}

// explain adds to an error of the server what there is to do about it.
func explain(err error) error {
	switch sqlState(err) {
	case undefinedTable, undefinedFunction, invalidSchemaName:
		return fmt.Errorf("%w: the schema is not there, or is not complete: run Migrate with a role that may create it", err)
	case insufficientPrivilege:
		return fmt.Errorf("%w: grant the role what docs/operations.md lists, or run Migrate with the owner's", err)
	case readOnlyTransaction:
		return fmt.Errorf("%w: this is a replica, or was made read-only: connect to the primary (target_session_attrs=read-write); nothing was written", err)
	case diskFull:
		return fmt.Errorf("%w: nothing was written; free some space and send it again", err)
	case queryCanceled, lockNotAvailable:
		return fmt.Errorf("%w: statement_timeout or lock_timeout ended it, or somebody did; nothing was written", err)
	case wrongIsolation:
		return fmt.Errorf("%w: begin the transaction with isolation level read committed", err)
	}
	return err
}

// within wraps an error with what was being done, but leaves the context's own as it is.
func within(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, es.ErrUnknownOutcome) {
		return ctxErr
	}
	if isNetwork(err) && !hopeless(err) || isPassing(err) || (backend{}).Passing(err) {
		err = &brokenError{err} // for a reaction, whose commands fail with it: it is not the record's fault
	}
	return fmt.Errorf("postgres: %s: %w", what, explain(err))
}
