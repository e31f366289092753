package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
)

// SQLSTATEs and their classes that the store acts on. Source: appendix A of PostgreSQL's documentation. ES001 is one of our own; see
// migrations/001.sql.
const (
	wrongIsolation        = "ES001"
	connectionException   = "08" // a class
	featureNotSupported   = "0A000"
	dataException         = "22" // a class
	invalidParameterValue = "22023"
	constraintViolation   = "23" // a class
	readOnlyTransaction   = "25006"
	idleInTransaction     = "25P03"
	transactionTimeout    = "25P04"
	invalidStatementName  = "26000"
	invalidAuthorization  = "28000"
	invalidPassword       = "28P01"
	invalidCatalogName    = "3D000"
	invalidSchemaName     = "3F000"
	transactionRollback   = "40" // a class
	serializationFailure  = "40001"
	deadlockDetected      = "40P01"
	insufficientPrivilege = "42501"
	checkOptionViolation  = "44" // a class
	undefinedColumn       = "42703"
	undefinedObject       = "42704" // a parameter in the URL that the server does not know
	undefinedFunction     = "42883"
	undefinedTable        = "42P01"
	duplicateStatement    = "42P05"
	insufficientResources = "53" // a class
	diskFull              = "53100"
	tooManyConnections    = "53300"
	programLimitExceeded  = "54" // a class
	lockNotAvailable      = "55P03"
	operatorIntervention  = "57" // a class
	queryCanceled         = "57014"
	adminShutdown         = "57P01"
	crashShutdown         = "57P02"
	cannotConnectNow      = "57P03"
	systemError           = "58" // a class
	snapshotTooOld        = "72" // a class
	configurationFile     = "F0" // a class
	foreignConnection     = "HV00N"
	raisedException       = "P0001"
	internalError         = "XX" // a class
)

// planInvalidated is the routine of the server that refuses a prepared statement after a change of a table's columns. Its SQLSTATE,
// featureNotSupported, is also that of statements that can never succeed.
const planInvalidated = "RevalidateCachedQuery"

// A trait is something about an error that decides what the store does next.
type trait uint16

const (
	refused       trait = 1 << iota // the server reports that the statement failed, so nothing of it was written
	network                         // the connection could not be made, or broke
	permanent                       // connecting fails until the configuration changes
	starting                        // the server will accept connections later
	blocked                         // the server is up but cannot carry out the statement at present
	repeatable                      // a transaction that failed with this error can be run again
	lostStatement                   // a pooler lost or mixed up a prepared statement
	isolation                       // the transaction needs isolation level read committed
	imposed                         // the server did it to the transaction, whatever its statements were
	datum                           // a value, or a constraint or trigger of the application, and not the statement
)

// traits are those of SQLSTATEs and of classes of SQLSTATEs. A code also has the traits of its class.
var traits = map[string]trait{
	wrongIsolation: isolation,

	dataException:        datum,
	constraintViolation:  datum,
	checkOptionViolation: datum,
	programLimitExceeded: datum,
	raisedException:      datum,

	// A protocol violation (08P01) is not permanent: pgbouncer reports it while its server is not available.
	connectionException:   repeatable | imposed,
	invalidAuthorization:  permanent,
	invalidPassword:       permanent,
	invalidCatalogName:    permanent,
	insufficientPrivilege: permanent,
	undefinedObject:       permanent,
	invalidParameterValue: permanent,

	readOnlyTransaction:   blocked | repeatable, // a replica that may yet be promoted
	lockNotAvailable:      blocked | repeatable | imposed,
	transactionRollback:   imposed,
	deadlockDetected:      blocked | repeatable,
	insufficientResources: blocked | repeatable | imposed,
	operatorIntervention:  imposed,
	queryCanceled:         blocked,
	serializationFailure:  repeatable,
	idleInTransaction:     repeatable | imposed,
	transactionTimeout:    imposed,
	systemError:           imposed,
	snapshotTooOld:        imposed,
	configurationFile:     imposed,
	foreignConnection:     imposed,
	internalError:         imposed,
	adminShutdown:         repeatable,
	crashShutdown:         repeatable,
	cannotConnectNow:      repeatable | starting,
	tooManyConnections:    starting,
	invalidStatementName:  repeatable | lostStatement,
	duplicateStatement:    repeatable | lostStatement,
}

// A fault is a classified error.
type fault struct {
	code   string // its SQLSTATE; "" if the server did not report it
	traits trait
}

// classify returns what the store must know about an error. It is the only place that looks into errors of the server and the network.
func classify(err error) fault {
	var f fault
	if err == nil {
		return f
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		f.code = e.Code
		f.traits = traits[e.Code] | traits[e.Code[:min(2, len(e.Code))]]
		// FATAL and PANIC end the connection, possibly after the commit.
		if e.SeverityUnlocalized == "ERROR" {
			f.traits |= refused
		} else if !f.has(permanent) {
			f.traits |= imposed
		}
		if e.Code == featureNotSupported && e.Routine == planInvalidated {
			f.traits |= repeatable | imposed
		}
	}
	if isNetwork(err) {
		f.traits |= network
	}
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		f.traits |= permanent
	}
	if _, ok := errors.AsType[*brokenError](err); ok {
		f.traits |= repeatable | imposed
	}
	return f
}

// has reports whether the error has any of some traits.
func (f fault) has(t trait) bool { return f.traits&t != 0 }

// unreachable reports whether the server could not be reached but may be later.
func (f fault) unreachable() bool {
	switch {
	case f.has(permanent):
		return false
	case f.code == "":
		return f.has(network)
	}
	return f.has(starting) || !f.has(refused)
}

// unavailable reports whether an operation failed because of the database and not because of what it was asked. What ended the
// connection is of this kind, whatever its code is.
func (f fault) unavailable() bool {
	return f.has(network) && !f.has(permanent) || f.has(blocked|repeatable|imposed)
}

// passing reports whether the same transaction may succeed later, because the server or the network failed it and not its statements. Such an
// error is never the fault of a record or a handler.
func (f fault) passing() bool { return f.has(imposed | repeatable) }

// isNetwork reports whether an error comes from the network and not from the statement.
func isNetwork(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// A brokenError reports that a connection was not available or broke, or that a statement of the store was cancelled from outside.
// It says nothing about a handler or its records. It is an [es.ErrUnavailable].
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// Is reports whether the target is [es.ErrUnavailable].
func (e *brokenError) Is(target error) bool { return target == es.ErrUnavailable }

// A sentError is that of a request that was sent and may have been carried out. If a connection breaks before the answer to a batch,
// pgconn reports that it is safe to retry, because its last attempt to read is from a connection that it has already closed.
type sentError struct{ error }

func (e *sentError) Unwrap() error { return e.error }

// SafeToRetry is the method that pgconn.SafeToRetry looks for.
func (e *sentError) SafeToRetry() bool { return false }

// An unpreparedError is that of a connection that broke while a statement was prepared, so that it was not sent.
type unpreparedError struct{ error }

func (e *unpreparedError) Unwrap() error { return e.error }

// SafeToRetry is the method that pgconn.SafeToRetry looks for.
func (e *unpreparedError) SafeToRetry() bool { return true }

// An uncommittedError is that of a transaction whose commit was not sent or was refused.
type uncommittedError struct{ error }

func (e *uncommittedError) Unwrap() error { return e.error }

// explain adds the remedy to an error of the server.
func explain(err error) error {
	var remedy string
	switch classify(err).code {
	case undefinedTable, undefinedFunction, invalidSchemaName:
		remedy = "the schema is missing or incomplete: run Migrate with a role that may create it"
	case insufficientPrivilege:
		remedy = "grant the role what docs/operations.md lists, or run Migrate as the owner"
	case readOnlyTransaction:
		remedy = "this server is read-only: connect to the primary (target_session_attrs=read-write); nothing was written"
	case diskFull:
		remedy = "nothing was written; free some space and send it again"
	case queryCanceled, lockNotAvailable:
		remedy = "statement_timeout, lock_timeout or an operator cancelled it; nothing was written"
	case idleInTransaction:
		remedy = "the handler ran no statement for longer than its Lease: do less in it, or raise Lease"
	case wrongIsolation:
		remedy = "begin the transaction with isolation level read committed"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, remedy)
}

// within adds the operation to an error, but returns the context's own error unchanged.
func within(ctx context.Context, operation string, err error) error {
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, es.ErrUnknownOutcome) {
		return cause.Of(ctx, ctxErr)
	}
	if classify(err).unavailable() {
		err = &brokenError{err}
	}
	return cause.Of(ctx, fmt.Errorf("postgres: %s: %w", operation, explain(err)))
}
