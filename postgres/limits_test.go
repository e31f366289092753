package postgres_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

func TestLimits(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		s := open(t, server.Database(t))
		t.Run("sizes over a limit are refused", func(t *testing.T) {
			large := func(n, size int) es.Append {
				a := es.Append{Stream: account("large"), Expected: 0}
				for range n {
					a.Events = append(a.Events, es.Record{Type: "t", Data: make([]byte, size)})
				}
				return a
			}
			for _, test := range []struct {
				call []es.Append
				says []string
			}{
				{[]es.Append{large(1, es.MaxData+1)}, []string{"account/large", "16777217", "16777216"}},
				{[]es.Append{large(4, es.MaxData), large(1, 1)}, []string{"67108865", "67108864"}},
				{[]es.Append{large(es.MaxEvents, 0), large(1, 0)}, []string{"10001", "10000"}},
			} {
				_, err := s.Append(t.Context(), test.call...)
				if !errors.Is(err, es.ErrInvalid) {
					t.Fatalf("got %v, want es.ErrInvalid", err)
				}
				for _, want := range test.says {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q does not say %s", err, want)
					}
				}
			}
		})
		t.Run("ten thousand events are one call", func(t *testing.T) {
			records := make([]es.Record, es.MaxEvents)
			for i := range records {
				records[i] = es.Record{Type: fmt.Sprint("t", i%7), Data: []byte(fmt.Sprint(i)), Meta: map[string]string{"n": fmt.Sprint(i)}}
			}
			if position := mustAppend(t, s, es.Append{Stream: account("many"), Expected: 0, Events: records}); position != es.MaxEvents {
				t.Errorf("got position %d, want %d", position, es.MaxEvents)
			}
			for i, r := range dense(t, s) {
				if string(r.Data) != fmt.Sprint(i) || r.Meta["n"] != fmt.Sprint(i) {
					t.Fatalf("record %d has data %s and metadata %v", i, r.Data, r.Meta)
				}
			}
		})
		t.Run("an invalid stream has no snapshot", func(t *testing.T) {
			if n, err := s.LoadSnapshot(t.Context(), account("nul\x00")); err != nil || n.Version != 0 {
				t.Errorf("got %v, %v", n, err)
			}
		})
		t.Run("a snapshot's schema can be any integer", func(t *testing.T) {
			for _, schema := range []int{1 << 40, 20260228123456, -1 << 62} {
				want := es.Snapshot{Stream: account(fmt.Sprint(schema)), Version: 1 << 50, Position: 1 << 60, Schema: schema, Data: []byte{}}
				if err := s.SaveSnapshot(t.Context(), want); err != nil {
					t.Fatal(err)
				}
				got, err := s.LoadSnapshot(t.Context(), want.Stream)
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("got %v, %v\n%s", got, err, diff)
				}
			}
		})
	})
}

func TestFilters(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		s := open(t, server.Database(t))
		for i := range 20 {
			mustAppend(t, s, es.Append{Stream: es.Stream{Kind: fmt.Sprint("k", i), ID: "1"}, Expected: 0, Events: []es.Record{{Type: fmt.Sprint("t", i%5)}, {Type: fmt.Sprint("k", i)}}})
		}
		all := dense(t, s)
		many := make([]string, 30_000)
		for i := range many {
			many[i] = fmt.Sprint("k", 10+i)
		}
		bad := []string{"k1\x00", "\x00", "\xff", "", strings.Repeat("k", 5000), "k1/", "k1"}
		for name, filter := range map[string]es.Filter{
			"many kinds":         {Kinds: many},
			"many types":         {Types: many},
			"many of both":       {Kinds: many, Types: slices.Concat(many, []string{"t1"})},
			"bad kinds":          {Kinds: bad},
			"bad types":          {Types: bad},
			"nothing but bad":    {Kinds: bad[:6]},
			"one twice":          {Kinds: []string{"k3", "k3"}, Types: []string{"t3", "t3"}},
			"a type with a / ":   {Types: []string{"k1/"}},
			"kinds are not ids":  {Kinds: []string{"1"}},
			"none of these both": {Kinds: []string{"k1"}, Types: []string{"t2"}},
		} {
			var want []es.Record
			for _, r := range all {
				if filter.Match(r) {
					want = append(want, r)
				}
			}
			if diff := cmp.Diff(want, collect(t, s.All(t.Context(), 0, filter))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// heap returns the bytes in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestMemoryIsBounded(t *testing.T) {
	const (
		size  = 1 << 20
		count = 96
		bound = 48 << 20 // two pages and what the connection has
	)
	server := testserver.Postgres(t, testserver.Postgres18) // it is the client's
	s, tap := tapped(t, server.Database(t))
	before := heap()
	for range 2 {
		records := make([]es.Record, count/2)
		for i := range records {
			records[i] = es.Record{Type: "t", Data: bytes.Repeat([]byte{byte(i)}, size)}
		}
		mustAppend(t, s, es.Append{Stream: account("large"), Expected: es.AnyVersion, Events: records})
	}
	t.Run("after a large append", func(t *testing.T) {
		if kept := heap() - before; kept > bound/2 {
			t.Errorf("the store keeps %d MiB", kept>>20)
		}
	})
	for name, read := range map[string]func(func(es.Record, error) bool){
		"of a loop over the log":  s.All(t.Context(), 0, es.Filter{}),
		"of a loop over a stream": s.Read(t.Context(), account("large"), 0),
	} {
		t.Run(name, func(t *testing.T) {
			n, most, received := 0, 0, tap.received()
			for r, err := range read {
				if err != nil {
					t.Fatal(err)
				}
				n++
				if r.Version%8 == 3 {
					most = max(most, heap()-before)
				}
			}
			if n != count || most > bound {
				t.Errorf("%d records of 1 MiB took up to %d MiB", n, most>>20)
			}
			if received = tap.received() - received; received > 2*size*count {
				t.Errorf("%d records of 1 MiB took %d MiB over the wire", n, received>>20)
			}
		})
	}
}
