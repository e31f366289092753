package sqltx_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/sqltx"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		dialect sqltx.Dialect
		text    string
		args    int
		want    string // the text, or what an error has
	}{
		{sqltx.SQLite, "select $1, '$2', \"$3\", [$4], `$5`, a$6 -- $7", 1, "select ?1, '$2', \"$3\", [$4], `$5`, a$6 -- $7"},
		{sqltx.SQLite, "select $2/* $3 */+$1", 2, "select ?2/* $3 */+?1"},
		{sqltx.SQLite, "select $name", 0, "placeholders are $1"},
		{sqltx.SQLite, "select :name", 0, "placeholders are $1"},
		{sqltx.SQLite, "select @name", 0, "placeholders are $1"},
		{sqltx.SQLite, "select $99999", 0, "not one of $1"},
		{sqltx.Postgres, "select $1::text, $$ $2 $$, $a$ $3; $$ $a$, E'\\'$4', E'\\\\'", 1, "select $1::text, $$ $2 $$, $a$ $3; $$ $a$, E'\\'$4', E'\\\\'"},
		{sqltx.Postgres, "select a ? 'b', a @> $1 /* /* $2 */ $3 */", 1, "select a ? 'b', a @> $1 /* /* $2 */ $3 */"},
		{sqltx.Postgres, "select 1;;; select 2 ;", 0, "select 1;;; select 2 ;"},
		{sqltx.Postgres, "rollback work to savepoint a", 0, "rollback work to savepoint a"},
		{sqltx.Postgres, "prepare transaction 'a'", 0, "only the store ends"},
		{sqltx.Postgres, "savepoint a; ABORT", 0, "only the store ends"},
		{sqltx.SQLite, "create trigger a after insert on b begin delete from b; end", 0, "create trigger a after insert on b begin delete from b; end"},
		{sqltx.Postgres, "create or replace function a() returns int begin atomic select 1; end", 0, "create or replace function a() returns int begin atomic select 1; end"},
		{sqltx.Postgres, "create table a (b int); commit", 0, "only the store ends"},
		{sqltx.Postgres, "select 'open", 0, "select 'open"},
		{sqltx.SQLite, "select /* open", 0, "select /* open"},
	} {
		s, err := sqltx.Parse(test.dialect, test.text, test.args, false)
		if err != nil {
			if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %s", test.text, err, test.want)
			}
		} else if s.Text != test.want {
			t.Errorf("%s: got %s, want %s", test.text, s.Text, test.want)
		}
	}
}

// Whatever a program writes, it is read to its end.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"select $1", "'", "/*", "$a$", "e'\\", "[", "--", "create trigger ;", "$", "a$1;"} {
		f.Add(text, 1)
	}
	f.Fuzz(func(t *testing.T, text string, args int) {
		for _, d := range []sqltx.Dialect{sqltx.Postgres, sqltx.SQLite} {
			s, err := sqltx.Parse(d, text, args, false)
			if (s == nil) == (err == nil) {
				t.Errorf("%q: %v, %v", text, s, err)
			}
			if s != nil && d == sqltx.Postgres && s.Text != text {
				t.Errorf("%q was changed to %q", text, s.Text)
			}
		}
	})
}
