package postgres

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/bits"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/thalo-go/es"
)

// A statement is one that the store runs again and again, in the binary format.
//
// A session keeps the plan of a prepared statement. One that was made while the table was almost empty, when scanning it is the cheapest
// way, would scan it when it is large, until somebody runs analyze. So a statement has several names, and takes the next one
// whenever the log has grown fourfold: under that it is prepared and planned anew.
type statement struct {
	names [maxGrowth + 1]string
	sql   string
}

const maxGrowth = 64 / 2

// newStatement fills in what stands in braces; see sql.
func (s *Store) newStatement(sql string) *statement {
	stmt := &statement{sql: s.sql(sql)}
	h := fnv.New64a()
	h.Write([]byte(stmt.sql))
	for growth := range stmt.names {
		stmt.names[growth] = fmt.Sprintf("es_%x_%d", h.Sum64(), growth)
	}
	return stmt
}

// grown notes that the log has reached a position.
func (s *Store) grown(position es.Position) {
	growth := int32(bits.Len64(uint64(position)) / 2)
	for old := s.growth.Load(); growth > old; old = s.growth.Load() {
		s.growth.CompareAndSwap(old, growth)
	}
}

var binaryFormat = []int16{1} // one for all

// query runs a statement: prepared once on each connection, or, behind a pooler that hands out connections by transaction
// and knows nothing of prepared statements, parsed anew each time. Both are one round trip.
func (s *Store) query(ctx context.Context, conn *pgx.Conn, stmt *statement, prepared bool, params [][]byte) *pgconn.ResultReader {
	if prepared {
		name := stmt.names[s.growth.Load()]
		_, err := conn.Prepare(ctx, name, stmt.sql)
		if err == nil {
			return conn.PgConn().ExecPrepared(ctx, name, params, binaryFormat, binaryFormat)
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
	_, err := s.exec(ctx, conn, stmt, params, f)
	return err
}

// exec is like each, and returns what the server says that it did.
func (s *Store) exec(ctx context.Context, conn *pgx.Conn, stmt *statement, params [][]byte, f func(row [][]byte) error) (pgconn.CommandTag, error) {
	for {
		prepared := !s.unprepared.Load()
		result := s.query(ctx, conn, stmt, prepared, params)
		var failed error
		for result.NextRow() {
			if failed == nil {
				failed = f(result.Values())
			}
		}
		tag, err := result.Close()
		// Others may have found out at the same time. And in a transaction of the application's, it is too late for another try.
		if prepared && s.giveUpPrepared(err) && conn.PgConn().TxStatus() == idle {
			continue
		}
		if err != nil {
			return tag, err
		}
		return tag, failed
	}
}

const idle = 'I' // the status of a connection that is in no transaction, in the protocol's ReadyForQuery
