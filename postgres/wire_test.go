package postgres_test

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// The server must return arrays in the binary format byte for byte.
func TestArraysOnTheWire(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		conn := connect(t, server.Database(t)).PgConn()
		echo := func(t *testing.T, kind string, value []byte) []byte {
			result := conn.ExecParams(t.Context(), "select $1::"+kind, [][]byte{value}, nil, []int16{1}, []int16{1}).Read()
			if result.Err != nil {
				t.Fatal(result.Err)
			}
			return result.Rows[0][0]
		}
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		ints := []int64{0, 1, -1, math.MaxInt32, math.MinInt32}
		for name, test := range map[string]struct {
			kind  string
			value []byte
		}{
			"texts":             {"text[]", postgres.TextArray("a", "", "NULL", `"quoted"`, "{1,2}", "a\nb\\c", "日本語", strings.Repeat("x", 1<<20))},
			"one text":          {"text[]", postgres.TextArray("")},
			"no texts":          {"text[]", postgres.TextArray()},
			"bytes":             {"bytea[]", postgres.BytesArray(all, nil, []byte{}, []byte("\\x00"), bytes.Repeat(all, 1<<12))},
			"no bytes":          {"bytea[]", postgres.BytesArray()},
			"long integers":     {"bigint[]", postgres.Int8Array(append(ints, math.MaxInt64, math.MinInt64)...)},
			"no long integers":  {"bigint[]", postgres.Int8Array()},
			"short integers":    {"integer[]", postgres.Int4Array(ints...)},
			"no short integers": {"integer[]", postgres.Int4Array()},
			"ten thousand":      {"bigint[]", postgres.Int8Array(make([]int64, 10_000)...)},
		} {
			t.Run(name, func(t *testing.T) {
				if got := echo(t, test.kind, test.value); !bytes.Equal(got, test.value) {
					t.Errorf("the server gave back %d bytes, %.64x, for %d bytes, %.64x", len(got), got, len(test.value), test.value)
				}
			})
		}
		t.Run("integers are read as the server writes them", func(t *testing.T) {
			for sql, want := range map[string][]int64{
				"array[1, -2, 2147483647]::integer[]":         {1, -2, math.MaxInt32},
				"array[1, -2, 9223372036854775807]::bigint[]": {1, -2, math.MaxInt64},
				"'{}'::bigint[]":                               nil,
				"null::integer[]":                              nil,
				"array_fill(7, array[3])":                      {7, 7, 7},
				"array(select g from generate_series(1, 4) g)": {1, 2, 3, 4},
				"array[null, 5, null]::integer[]":              {0, 5, 0},
				"(array(select generate_series(1, 9)))[3:5]":   {3, 4, 5},
				"'[5:7]={1,2,3}'::bigint[]":                    {1, 2, 3},
			} {
				result := conn.ExecParams(t.Context(), "select "+sql, nil, nil, nil, []int16{1}).Read()
				if result.Err != nil {
					t.Fatal(result.Err)
				}
				if got, err := postgres.Ints(result.Rows[0][0]); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s was read as %v, %v; want %v", sql, got, err, want)
				}
			}
		})
		t.Run("times are read as the server writes them", func(t *testing.T) {
			for _, text := range []string{"1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00Z", "2026-02-28T12:34:56.789012Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"} {
				want, err := time.Parse(time.RFC3339Nano, text)
				if err != nil {
					t.Fatal(err)
				}
				if got := postgres.Timestamp(conn.ExecParams(t.Context(), "select '"+text+"'::timestamptz", nil, nil, nil, []int16{1}).Read().Rows[0][0]); got != want {
					t.Errorf("%s was read as %v", text, got)
				}
			}
		})
	})
}

// Any input decodes to integers or an error.
func FuzzInts(f *testing.F) {
	seeds := [][]byte{
		nil, {0}, postgres.Int4Array(), postgres.Int8Array(), postgres.Int4Array(1, -1), postgres.Int8Array(math.MaxInt64), postgres.TextArray("abc"),
		postgres.Int8Array(1)[:20], postgres.Int8Array(1)[:21], postgres.Int8Array(1, 2)[:33],
	}
	negative := postgres.Int8Array(1, 2)
	negative[12] = 0xff
	many := postgres.Int8Array(1, 2)
	many[13] = 0xff
	twoDimensions := postgres.Int8Array(1, 2)
	twoDimensions[3] = 2
	for _, seed := range append(seeds, negative, many, twoDimensions) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ints, err := postgres.Ints(b)
		if err != nil && ints != nil {
			t.Errorf("got %v beside %v", ints, err)
		}
		if len(ints)*4 > len(b) {
			t.Errorf("%d integers of %d bytes", len(ints), len(b))
		}
	})
}
