package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/sqltx"
)

// timeFormat has a fixed length and no zone but UTC, so that times are in order as texts, and microseconds as Postgres has.
const timeFormat = "2006-01-02 15:04:05.000000-07:00"

// bindable returns arguments as SQLite stores them: what Postgres refuses is refused, and times are texts.
func bindable(args []any) ([]any, error) {
	values := make([]any, len(args))
	for i, arg := range args {
		var err error
		if values[i], err = bindableValue(arg); err != nil {
			return nil, fmt.Errorf("%w: $%d: %w", es.ErrInvalid, i+1, err)
		}
	}
	return values, nil
}

func bindableValue(arg any) (any, error) {
	if raw, is := arg.(json.RawMessage); is {
		if raw == nil {
			return nil, nil
		}
		arg = string(raw)
	}
	value, err := driver.DefaultParameterConverter.ConvertValue(arg)
	if err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case string:
		if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
			return nil, fmt.Errorf("%.40q is not UTF-8 without NUL: give it as []byte", v)
		}
	case float64:
		if math.IsNaN(v) {
			return nil, fmt.Errorf("it is NaN, which SQLite would store as NULL: give a number or nil")
		}
	case time.Time:
		v = v.UTC()
		if v.Year() < 0 || v.Year() > 9999 {
			return nil, fmt.Errorf("the year of %v is not one of 0 to 9999", v)
		}
		return v.Format(timeFormat), nil
	}
	return value, nil
}

// scanRow scans a row. The driver has times only for columns of some types, and no JSON.
func scanRow(rows *sql.Rows, dest []any) error {
	into := dest
	for i, d := range dest {
		var as any
		switch d := d.(type) {
		case *time.Time:
			as = timeScanner(func(t time.Time, null bool) error {
				if null {
					return fmt.Errorf("converting NULL to time.Time is unsupported")
				}
				*d = t
				return nil
			})
		case **time.Time:
			as = timeScanner(func(t time.Time, null bool) error {
				if *d = nil; !null {
					*d = &t
				}
				return nil
			})
		case *sql.NullTime:
			as = timeScanner(func(t time.Time, null bool) error {
				*d = sql.NullTime{Time: t, Valid: !null}
				return nil
			})
		case *sql.Null[time.Time]:
			as = timeScanner(func(t time.Time, null bool) error {
				*d = sql.Null[time.Time]{V: t, Valid: !null}
				return nil
			})
		case *json.RawMessage:
			as = (*[]byte)(d)
		default:
			continue
		}
		if &into[0] == &dest[0] {
			into = append([]any(nil), dest...)
		}
		into[i] = as
	}
	return rows.Scan(into...)
}

// timeScanner is called with a time that is scanned.
type timeScanner func(t time.Time, null bool) error

// Scan implements [sql.Scanner].
func (s timeScanner) Scan(value any) error {
	var text string
	switch v := value.(type) {
	case nil:
		return s(time.Time{}, true)
	case time.Time:
		return s(v.UTC(), false)
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return fmt.Errorf("a %T is not a time", value)
	}
	for _, format := range append([]string{timeFormat, time.RFC3339Nano}, sqlite3.SQLiteTimestampFormats...) {
		if t, err := time.Parse(format, text); err == nil {
			return s(t.UTC(), false)
		}
	}
	return fmt.Errorf("%.40q is not a time", text)
}

// copyRows reads all rows, and returns them as a result that needs no connection.
func (s *Store) copyRows(ctx context.Context, rows *sql.Rows) (sqltx.Rows, error) {
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	kept := &replay{columns: columns}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		kept.rows = append(kept.rows, values)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	// database/sql converts values to what Scan wants, and only of a driver.
	db := sql.OpenDB(kept)
	again, err := db.QueryContext(ctx, "") //nolint:rowserrcheck // sqltx.Each does
	if err != nil {
		_ = db.Close() // the first error is the cause
		return nil, err
	}
	return &replayedRows{convertedRows{again}, db}, nil
}

// replayedRows are rows that were read before.
type replayedRows struct {
	convertedRows
	db *sql.DB
}

// Close implements [sqltx.Rows].
func (r *replayedRows) Close() error {
	if err := r.Rows.Close(); err != nil {
		return err
	}
	return r.db.Close()
}

// replay is a driver whose only result is what was read before.
type replay struct {
	columns []string
	rows    [][]any
}

// Connect implements driver.Connector.
func (r *replay) Connect(context.Context) (driver.Conn, error) { return replayConn{r}, nil }

// Driver implements driver.Connector.
func (r *replay) Driver() driver.Driver { return nil }

// replayConn is its connection.
type replayConn struct{ *replay }

// QueryContext implements driver.QueryerContext.
func (c replayConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return c, nil
}

// Prepare implements driver.Conn.
func (c replayConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }

// Begin implements driver.Conn.
func (c replayConn) Begin() (driver.Tx, error) { return nil, driver.ErrSkip }

// Close implements driver.Conn and driver.Rows.
func (c replayConn) Close() error { return nil }

// Columns implements driver.Rows.
func (c replayConn) Columns() []string { return c.columns }

// Next implements driver.Rows.
func (c replayConn) Next(dest []driver.Value) error {
	if len(c.rows) == 0 {
		return io.EOF
	}
	for i, v := range c.rows[0] {
		dest[i] = v
	}
	c.rows = c.rows[1:]
	return nil
}
