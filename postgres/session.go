package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A statement is one that the store runs again and again, in the binary format.
type statement struct {
	name string
	sql  string
	oids []uint32 // of the parameters; zeros are left to the server
}

// newStatement replaces {schema} in a statement's text.
func (s *Store) newStatement(sql string, oids ...uint32) *statement {
	sql = strings.ReplaceAll(sql, "{schema}", s.schema)
	h := fnv.New64a()
	h.Write([]byte(sql))
	return &statement{fmt.Sprintf("es_%x", h.Sum64()), sql, oids}
}

var binaryFormat = []int16{1} // one for all

// query runs a statement: prepared once on each connection, or, behind a pooler that hands out connections by transaction
// and knows nothing of prepared statements, parsed anew each time. Both are one round trip.
func (s *Store) query(ctx context.Context, conn *pgx.Conn, stmt *statement, params ...[]byte) *pgconn.ResultReader {
	if s.unprepared.Load() {
		return conn.PgConn().ExecParams(ctx, stmt.sql, params, stmt.oids, binaryFormat, binaryFormat)
	}
	if _, err := conn.Prepare(ctx, stmt.name, stmt.sql); err != nil {
		if s.noPrepared(err) {
			return s.query(ctx, conn, stmt, params...)
		}
		// The statement fails in the same way if it is run without being prepared, and the caller hears of it there.
		return conn.PgConn().ExecParams(ctx, stmt.sql, params, stmt.oids, binaryFormat, binaryFormat)
	}
	return conn.PgConn().ExecPrepared(ctx, stmt.name, params, binaryFormat, binaryFormat)
}

// noPrepared tells whether an error is that of a pooler that loses or mixes up prepared statements. From then on the store does without.
func (s *Store) noPrepared(err error) bool {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == invalidStatementName || e.Code == duplicateStatement) {
		return !s.unprepared.Swap(true)
	}
	return false
}

// each runs a statement and calls f with every row; the values are good only during the call.
func (s *Store) each(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, f func(row [][]byte) error) error {
	for {
		result := s.query(ctx, conn, stmt, params...)
		var failed error
		for result.NextRow() {
			if failed == nil {
				failed = f(result.Values())
			}
		}
		_, err := result.Close()
		if s.noPrepared(err) {
			continue
		}
		if err != nil {
			return err
		}
		return failed
	}
}
