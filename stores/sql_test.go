package stores_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// SQLite takes $1 for the name of a parameter, which it numbers by its first appearance.
func TestPlaceholdersAreAlike(t *testing.T) {
	many, numbers := make([]any, 12), make([]string, 12)
	for i := range many {
		many[i], numbers[i] = string(rune('a'+i)), "$"+string("123456789"[min(i, 8)])
	}
	numbers[9], numbers[10], numbers[11] = "$10", "$11", "$12"
	tests := []struct {
		name, query string
		args        []any
		want        string // "" for an error that wraps es.ErrInvalid
	}{
		{"in order", "select cast($1 as text) || cast($2 as text)", []any{"a", "b"}, "ab"},
		{"the second first", "select cast($2 as text) || cast($1 as text)", []any{"a", "b"}, "ba"},
		{"one twice", "select cast($1 as text) || cast($2 as text) || cast($1 as text)", []any{"a", "b"}, "aba"},
		{"more than ten", "select cast(" + strings.Join(numbers, " as text) || cast(") + " as text)", many, "abcdefghijkl"},
		{"the last first", "select cast($12 as text) || cast(" + strings.Join(numbers, " as text) || cast(") + " as text)", many, "labcdefghijkl"},
		{"in a string", "select '$2 ''$3'' ?' || cast($1 as text)", []any{"a"}, "$2 '$3' ?a"},
		{"in a name", `select "$2?" from (select cast($1 as text) as "$2?") as x`, []any{"a"}, "a"},
		{"after a name", "select a$2 from (select cast($1 as text) as a$2) as x", []any{"a"}, "a"},
		{"in a comment", "select /* $2 ' */ cast($1 as text) -- $3 '", []any{"a"}, "a"},
		{"a semicolon at the end", "select cast($1 as text); -- done", []any{"a"}, "a"},
		{"a semicolon in a string", "select ';' || cast($1 as text)", []any{"a"}, ";a"},
		{"none", "select 'a'", nil, "a"},
		{"a gap", "select cast($1 as text) || cast($3 as text)", []any{"a", "b", "c"}, ""},
		{"too few arguments", "select cast($1 as text) || cast($2 as text)", []any{"a"}, ""},
		{"too many arguments", "select cast($1 as text)", []any{"a", "b"}, ""},
		{"no argument", "select cast($1 as text)", nil, ""},
		{"zero", "select cast($0 as text)", []any{"a"}, ""},
		{"a question mark", "select cast(? as text)", []any{"a"}, ""},
		{"two statements", "select cast($1 as text); select 'b'", []any{"a"}, ""},
		{"two statements without arguments", "select 'a'; select 'b'", nil, ""},
	}
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		for _, test := range tests {
			var outside, inside string
			errOutside := store.QueryRow(t.Context(), test.query, test.args...).Scan(&outside)
			errInside := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
				return tx.QueryRow(ctx, test.query, test.args...).Scan(&inside)
			})
			if outside != test.want || inside != test.want {
				t.Errorf("%s: got %q, in a handler %q, want %q", test.name, outside, inside, test.want)
			}
			for _, err := range []error{errOutside, errInside} {
				if invalid := errors.Is(err, es.ErrInvalid); invalid != (test.want == "") || err != nil && !invalid {
					t.Errorf("%s: %v", test.name, err)
				}
			}
		}
	})
}

type (
	word   string
	number int32
)

// Each value is written to a column of its type and read from it.
func TestValuesAreAlike(t *testing.T) {
	berlin := time.FixedZone("somewhere", 2*60*60)
	at := time.Date(2026, 11, 30, 23, 59, 59, 123456789, berlin)
	utc := at.UTC().Truncate(time.Microsecond)
	text, flag, none := "ü ' \" $1 \n", true, (*string)(nil)
	tests := []struct {
		column    string
		arg, want any
	}{
		{"bigint", int64(math.MaxInt64), int64(math.MaxInt64)},
		{"bigint", -1, -1},
		{"bigint", number(7), number(7)},
		{"bigint", es.Position(7), es.Position(7)},
		{"bigint", es.Version(7), es.Version(7)},
		{"bigint", uint32(math.MaxUint32), uint32(math.MaxUint32)},
		{"bigint", sql.NullInt64{}, sql.NullInt64{}},
		{"bigint", nil, (*int64)(nil)},
		{"boolean", true, true},
		{"boolean", false, false},
		{"boolean", &flag, true},
		{"boolean", nil, sql.NullBool{}},
		{"double precision", 0.1, 0.1},
		{"double precision", 3.0, 3.0},
		{"double precision", math.MaxFloat64, math.MaxFloat64},
		{"double precision", math.Inf(-1), math.Inf(-1)},
		{"text", text, text},
		{"text", &text, text},
		{"text", "", ""},
		{"text", "0012", "0012"},
		{"text", word("named"), word("named")},
		{"text", none, (*string)(nil)},
		{"text", nil, sql.NullString{}},
		{"text", sql.NullString{String: "a", Valid: true}, "a"},
		{"bytea", []byte{0, 1, 0xff}, []byte{0, 1, 0xff}},
		{"bytea", []byte{}, []byte{}},
		{"bytea", []byte(nil), []byte(nil)},
		{"json", json.RawMessage(`{"b":1,  "a":"\u0000"}`), json.RawMessage(`{"b":1,  "a":"\u0000"}`)},
		{"json", json.RawMessage(`{"a":"ü"}`), `{"a":"ü"}`},
		{"json", json.RawMessage(`["\"$1\\x"]`), []byte(`["\"$1\\x"]`)},
		{"json", json.RawMessage(`["\"$1\\x"]`), json.RawMessage(`["\"$1\\x"]`)},
		{"json", json.RawMessage(nil), (*string)(nil)},
		{"timestamptz", at, utc},
		{"timestamptz", &at, utc},
		{"timestamptz", at, &utc},
		{"timestamptz", time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)},
		{"timestamptz", nil, (*time.Time)(nil)},
		{"timestamptz", sql.NullTime{Time: at, Valid: true}, sql.NullTime{Time: utc, Valid: true}},
		{"timestamptz", sql.NullTime{}, sql.NullTime{}},
		{"timestamptz", at, sql.Null[time.Time]{V: utc, Valid: true}},
	}
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		for i, test := range tests {
			table := fmt.Sprint("v", i)
			do(t, store, "create table "+table+" (id bigint primary key, v "+test.column+")")
			inside, outside := reflect.New(reflect.TypeOf(test.want)), reflect.New(reflect.TypeOf(test.want))
			err := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
				if n, err := tx.Exec(ctx, "insert into "+table+" (v, id) values ($2, $1)", i, test.arg); err != nil || n != 1 {
					return errors.Join(errors.New("want one row"), err)
				}
				return tx.QueryRow(ctx, "select v from "+table+" where id = $1", i).Scan(inside.Interface())
			})
			if err != nil {
				t.Errorf("%s %#v: %v", test.column, test.arg, err)
				continue
			}
			err = store.QueryRow(t.Context(), "select v from "+table+" where id = $1", i).Scan(outside.Interface())
			if err != nil || !reflect.DeepEqual(inside.Elem().Interface(), test.want) || !reflect.DeepEqual(outside.Elem().Interface(), test.want) {
				t.Errorf("%s %#v: got %#v, in the handler %#v, %v: want %#v", test.column, test.arg, outside.Elem(), inside.Elem(), err, test.want)
			}
		}
	})
}

// What one database would store otherwise than the other is refused by both.
func TestValuesThatDifferAreRefused(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		do(t, store, "create table v (t text, f double precision, i bigint)")
		for _, test := range []struct {
			column string
			arg    any
		}{
			{"t", "a\x00b"}, {"t", "\xff"}, {"i", uint64(math.MaxUint64)}, {"t", make(chan int)},
		} {
			err := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
				_, err := tx.Exec(ctx, "insert into v ("+test.column+") values ($1)", test.arg)
				return err
			})
			if err == nil {
				t.Errorf("%v was stored", test.arg)
			}
		}
		for _, dest := range []any{new(string), new(int64), new(bool), new(float64), new(time.Time)} {
			if err := store.QueryRow(t.Context(), "select nullif('a', 'a')").Scan(dest); err == nil {
				t.Errorf("NULL was scanned into %T", dest)
			}
		}
		var a, b string
		if err := store.QueryRow(t.Context(), "select 'a'").Scan(&a, &b); err == nil {
			t.Error("one column was scanned into two variables")
		}
	})
}

// Times are compared and sorted as times, wherever they were.
func TestTimesAreInOrder(t *testing.T) {
	each(t, func(t *testing.T, open func() projection.Database) {
		store := open()
		do(t, store, "create table v (id bigint, at timestamptz)")
		at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
		err := handled(t, store, func(ctx context.Context, tx projection.SQL) error {
			for i, hours := range []int{3, -11, 0, 12} {
				there := at.Add(time.Duration(i) * time.Millisecond * 100).In(time.FixedZone("there", hours*60*60))
				if _, err := tx.Exec(ctx, "insert into v values ($1, $2)", i, there); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var ids []int
		for row, err := range store.Query(t.Context(), "select id from v where at > $1 order by at desc", at.In(time.FixedZone("here", 60*60))) {
			var id int
			if err == nil {
				err = row.Scan(&id)
			}
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		var last time.Time
		if err := store.QueryRow(t.Context(), "select max(at) from v").Scan(&last); err != nil || !last.Equal(at.Add(300*time.Millisecond)) {
			t.Errorf("the last time is %v, %v", last, err)
		}
		if !reflect.DeepEqual(ids, []int{3, 2, 1}) {
			t.Errorf("got %d, want 3, 2, 1", ids)
		}
	})
}
