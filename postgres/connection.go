package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
)

// Configure sets in the configuration of a pool what a store needs of its connections. [Open] does it. Call it before you make a pool for
// [New]:
//
//   - Texts are sent and received as UTF-8, whatever client_encoding the role or the database has. For a pool without that, the
//     store sets it on each new connection, which takes a round trip.
//   - The store learns whether the server stopped waiting for a synchronous standby. OnNotice of the configuration is called as before.
//     New refuses a pool without that if the server has synchronous standbys.
func Configure(config *pgxpool.Config) {
	c := config.ConnConfig
	if c.RuntimeParams == nil {
		c.RuntimeParams = make(map[string]string)
	}
	c.RuntimeParams[clientEncoding] = utf8Encoding
	others := c.OnNotice
	c.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) {
		if n.Routine == waitForStandby {
			conn.CustomData()[abandonedKey] = true
		}
		if others != nil {
			others(conn, n)
		}
	}
}

const (
	clientEncoding = "client_encoding"
	utf8Encoding   = "UTF8"

	// waitForStandby is the function of the server whose only notices say that a transaction was committed, but that its wait for a
	// synchronous standby was cancelled. The text of a notice depends on the server's language. Source: src/backend/replication/syncrep.c.
	waitForStandby = "SyncRepWaitForLSN"

	abandonedKey = "es: a wait for a standby was cancelled"
)

// errNotReplicated is the error of a transaction that is committed on the primary alone.
var errNotReplicated = errors.New("the wait for the synchronous standby was cancelled, and a failover could lose the transaction")

// replicated returns an error if the server has stopped waiting for a synchronous standby since the last call.
func replicated(conn *pgx.Conn) error {
	data := conn.PgConn().CustomData()
	if data[abandonedKey] == nil {
		return nil
	}
	delete(data, abandonedKey)
	return errNotReplicated
}

// connect takes a connection from the pool and sets what the store's promises rest on. Use borrow.
func (s *Store) connect(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	delete(conn.Conn().PgConn().CustomData(), abandonedKey) // of a transaction before
	if err := speakUTF8(ctx, conn.Conn()); err != nil {
		conn.Release()
		return nil, err
	}
	return conn, nil
}

// speakUTF8 sets client_encoding if the session has another: a role, a database or the pool's AfterConnect may have set it. The server
// reports each change, so that this costs nothing otherwise.
func speakUTF8(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().ParameterStatus(clientEncoding) == utf8Encoding {
		return nil
	}
	_, err := conn.PgConn().Exec(ctx, "set client_encoding to 'UTF8'").ReadAll()
	return err
}

// checkUTF8 checks the session of a transaction of the application, which the store does not change.
func checkUTF8(conn *pgx.Conn) error {
	if e := conn.PgConn().ParameterStatus(clientEncoding); e != utf8Encoding {
		return fmt.Errorf("postgres: %w: client_encoding of the transaction's session is %s: set it to UTF8", es.ErrInvalid, e)
	}
	return nil
}

// holdsUTF8 refuses a database that cannot hold every name. SQL_ASCII keeps any bytes.
func holdsUTF8(conn *pgx.Conn) error {
	switch e := conn.PgConn().ParameterStatus("server_encoding"); e {
	case utf8Encoding, "SQL_ASCII":
		return nil
	default:
		return fmt.Errorf("%w: the database has encoding %s, which cannot hold every name: create it with encoding UTF8", es.ErrInvalid, e)
	}
}

// settings are what a store must know of the server, and cannot set.
type settings struct {
	isolation string // default_transaction_isolation
	standbys  string // synchronous_standby_names
	hidden    bool   // whether row-level security may hide records
}

const selectSettings = `select value, current_setting('default_transaction_isolation'),
	current_setting('synchronous_standby_names'), row_security_active($1::text) from {schema}.meta where key = 'store'`

// check refuses a server on which the store could not keep its promises.
func (s *Store) check(server settings) error {
	switch {
	case server.hidden:
		return fmt.Errorf("%w: row-level security may hide records of %s.events from this role: give it bypassrls", es.ErrInvalid, s.schema)
	case s.config.ReadOnly:
		return nil
	case server.standbys != "" && s.pool.Config().ConnConfig.OnNotice == nil:
		return fmt.Errorf("%w: the server has synchronous_standby_names, and the pool ignores notices: call Configure before you make it", es.ErrInvalid)
	}
	return nil
}
