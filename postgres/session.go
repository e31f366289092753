package postgres

import (
	"context"
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
}

// newStatement replaces {schema} in a statement's text.
func (s *Store) newStatement(sql string) *statement {
	sql = strings.ReplaceAll(sql, "{schema}", s.schema)
	h := fnv.New64a()
	h.Write([]byte(sql))
	return &statement{fmt.Sprintf("es_%x", h.Sum64()), sql}
}

var binaryFormat = []int16{1} // one for all

// query runs a statement: prepared once on each connection, or, behind a pooler that hands out connections by transaction
// and knows nothing of prepared statements, parsed anew each time. Both are one round trip.
func (s *Store) query(ctx context.Context, conn *pgx.Conn, stmt *statement, prepared bool, params [][]byte) *pgconn.ResultReader {
	if prepared {
		_, err := conn.Prepare(ctx, stmt.name, stmt.sql)
		if err == nil {
			return conn.PgConn().ExecPrepared(ctx, stmt.name, params, binaryFormat, binaryFormat)
		}
		s.giveUpPrepared(err)
		// For any other reason the statement fails in the same way if it is run without being prepared, and the caller hears of it there.
	}
	return conn.PgConn().ExecParams(ctx, stmt.sql, params, nil, binaryFormat, binaryFormat)
}

// giveUpPrepared tells whether an error is that of a pooler that loses or mixes up prepared statements. From then on the store does without.
func (s *Store) giveUpPrepared(err error) bool {
	switch sqlState(err) {
	case invalidStatementName, duplicateStatement:
		s.unprepared.Store(true)
		return true
	}
	return false
}

// each runs a statement and calls f with every row; the values are good only during the call.
func (s *Store) each(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, f func(row [][]byte) error) error {
	for {
		prepared := !s.unprepared.Load()
		result := s.query(ctx, conn, stmt, prepared, params)
		var failed error
		for result.NextRow() {
			if failed == nil {
				failed = f(result.Values())
			}
		}
		_, err := result.Close()
		// Others may have found out at the same time. And in a transaction of the application's, it is too late for another try.
		if prepared && s.giveUpPrepared(err) && conn.PgConn().TxStatus() == idle {
			continue
		}
		if err != nil {
			return err
		}
		return failed
	}
}

const idle = 'I' // the status of a connection that is in no transaction, in the protocol's ReadyForQuery
