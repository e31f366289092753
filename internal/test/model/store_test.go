package model_test

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// A store is one of several on the same database.
type store interface {
	es.Log
	es.Snapshots
	Close() error
}

// TestStores compares the results of several stores on one database with those of Mem, including all reads.
func TestStores(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		checks(t, "5", "15")
		test(t, func(run int) func() (store, error) {
			path := filepath.Join(t.TempDir(), fmt.Sprint(run, ".db"))
			return func() (store, error) { return sqlite.Open(path) }
		})
	})
	t.Run("Postgres", func(t *testing.T) {
		checks(t, "3", "8")
		url := testserver.Postgres(t, testserver.Postgres18).Database(t)
		test(t, func(run int) func() (store, error) {
			return func() (store, error) {
				return postgres.Config{Schema: fmt.Sprint("run ", run)}.Open(t.Context(), url)
			}
		})
	})
}

func test(t *testing.T, database func(run int) (open func() (store, error))) {
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		m := &storeModel{t: t, open: database(run), want: new(es.Mem)}
		for range 3 {
			s, err := m.open()
			must(t, err)
			m.stores = append(m.stores, s)
		}
		defer func() {
			for _, s := range m.stores {
				must(t, s.Close())
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"append": m.append, "read": m.read, "all": m.all, "head": m.head, "reopen": m.reopen, "snapshot": m.snapshot,
		})
	})
}

type storeModel struct {
	t      *testing.T
	open   func() (store, error)
	stores []store
	want   *es.Mem
}

var (
	streams  = []es.Stream{{Kind: "account", ID: "a"}, {Kind: "account", ID: "a/b"}, {Kind: "accounts", ID: "a"}}
	commands = []string{"", "", "red", "green", "blue"}
	types    = []string{"opened", "closed"}
)

// some draws one of the stores.
func (m *storeModel) some(r *rapid.T) (i int, s store) {
	i = rapid.IntRange(0, len(m.stores)-1).Draw(r, "store")
	return i, m.stores[i]
}

func (m *storeModel) append(r *rapid.T) {
	_, s := m.some(r)
	heads := make(map[es.Stream]es.Version)
	for _, stream := range streams {
		heads[stream] = es.Version(len(collect(r, m.want.Read(m.t.Context(), stream, 0))))
	}
	var appends []es.Append
	for range rapid.IntRange(1, 3).Draw(r, "appends") {
		a := es.Append{Stream: rapid.SampledFrom(streams).Draw(r, "stream"), Command: rapid.SampledFrom(commands).Draw(r, "command")}
		switch rapid.IntRange(0, 5).Draw(r, "expects") {
		case 0:
			a.Expected = es.AnyVersion
		case 1:
			a.Expected = es.Version(rapid.IntRange(0, 9).Draw(r, "version"))
		default:
			a.Expected = heads[a.Stream]
		}
		for i := range rapid.IntRange(0, 3).Draw(r, "events") {
			e := es.Record{Type: rapid.SampledFrom(types).Draw(r, "type"), Data: rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(r, "data")}
			if i == 1 {
				e.Meta = map[string]string{"key": rapid.StringMatching(`[a-zü"]{0,4}`).Draw(r, "meta")}
			}
			a.Events = append(a.Events, e)
		}
		heads[a.Stream] += es.Version(len(a.Events))
		appends = append(appends, a)
	}
	want, wantErr := m.want.Append(m.t.Context(), appends...)
	got, err := s.Append(m.t.Context(), appends...)
	if got != want || verdict(err) != verdict(wantErr) {
		r.Fatalf("append %+v: position %d, %v; want %d, %v", appends, got, err, want, wantErr)
	}
}

// verdict returns the part of an error that must agree.
func verdict(err error) string {
	var conflict *es.ConflictError
	var duplicate *es.DuplicateError
	switch {
	case errors.As(err, &duplicate):
		return duplicate.Error()
	case errors.As(err, &conflict):
		return conflict.Error()
	case errors.Is(err, es.ErrInvalid):
		return es.ErrInvalid.Error()
	case err != nil:
		return err.Error()
	}
	return ""
}

func (m *storeModel) read(r *rapid.T) {
	_, s := m.some(r)
	stream, after := rapid.SampledFrom(streams).Draw(r, "stream"), es.Version(rapid.IntRange(-1, 12).Draw(r, "after"))
	same(r, collect(r, m.want.Read(m.t.Context(), stream, after)), collect(r, s.Read(m.t.Context(), stream, after)))
}

func (m *storeModel) all(r *rapid.T) {
	_, s := m.some(r)
	after := es.Position(rapid.IntRange(-1, 20).Draw(r, "after"))
	filter := es.Filter{
		Kinds: rapid.SliceOfN(rapid.SampledFrom([]string{"account", "accounts", "none"}), 0, 2).Draw(r, "kinds"),
		Types: rapid.SliceOfN(rapid.SampledFrom([]string{"opened", "closed", "none"}), 0, 2).Draw(r, "types"),
	}
	same(r, collect(r, m.want.All(m.t.Context(), after, filter)), collect(r, s.All(m.t.Context(), after, filter)))
}

func (m *storeModel) head(r *rapid.T) {
	_, s := m.some(r)
	want, _ := es.Head(m.t.Context(), m.want)
	if got, err := es.Head(m.t.Context(), s); err != nil || got != want {
		r.Fatalf("the head is %d, %v; want %d", got, err, want)
	}
	var ahead *es.AheadError
	if _, err := s.Changed(m.t.Context(), want+1); !errors.As(err, &ahead) || ahead.Head != want {
		r.Fatalf("beyond the head: %v", err)
	}
}

func (m *storeModel) snapshot(r *rapid.T) {
	_, s := m.some(r)
	n := es.Snapshot{
		Stream: rapid.SampledFrom(streams).Draw(r, "stream"), Version: es.Version(rapid.IntRange(1, 5).Draw(r, "version")), Position: 7,
		Schema: rapid.IntRange(0, 2).Draw(r, "schema"), Data: rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(r, "data"),
	}
	must(m.t, m.want.SaveSnapshot(m.t.Context(), n))
	must(m.t, s.SaveSnapshot(m.t.Context(), n))
	_, other := m.some(r)
	want, _ := m.want.LoadSnapshot(m.t.Context(), n.Stream)
	if got, err := other.LoadSnapshot(m.t.Context(), n.Stream); err != nil || !cmp.Equal(want, got) {
		r.Fatalf("snapshot %+v, %v; want %+v", got, err, want)
	}
}

func (m *storeModel) reopen(r *rapid.T) {
	i, s := m.some(r)
	id := s.ID()
	must(m.t, s.Close())
	again, err := m.open()
	must(m.t, err)
	if m.stores[i] = again; again.ID() != id {
		r.Fatalf("the store's id is %s, was %s", again.ID(), id)
	}
}

func collect(r *rapid.T, records iter.Seq2[es.Record, error]) (all []es.Record) {
	for record, err := range records {
		if err != nil {
			r.Fatal(err)
		}
		all = append(all, record)
	}
	return all
}

func same(r *rapid.T, want, got []es.Record) {
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(es.Record{}, "Time")); diff != "" {
		r.Fatal(diff)
	}
	if !slices.IsSortedFunc(got, func(a, b es.Record) int { return a.Time.Compare(b.Time) }) {
		r.Fatal("time runs backwards")
	}
}
