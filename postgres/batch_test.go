package postgres_test

import (
	"errors"
	"flag"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// Each call in a batch gets the verdict that it would get if the calls were made one after the other. es.Mem is the model.
func TestBatchAgainstMem(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		conn := connect(t, url)
		run := 0
		// Each check is hundreds of round trips. A few find what is wrong; -rapid.checks=1000 leaves no doubt.
		if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
			t.Cleanup(func() { _ = checks.Value.Set(checks.DefValue) }) // it is a number
			if err := checks.Value.Set("25"); err != nil {
				t.Fatal(err)
			}
		}
		rapid.Check(t, func(r *rapid.T) {
			run++
			m := &model{T: t, r: r, conn: conn, run: run, store: open(t, url), other: open(t, url), mem: new(es.Mem)}
			base, err := es.Head(t.Context(), m.store)
			if err != nil {
				r.Fatal(err)
			}
			m.base = base
			r.Repeat(map[string]func(*rapid.T){
				"batch":       m.batch,
				"batch again": m.batch,
				"read":        m.read,
				"elsewhere":   m.elsewhere,
				"in a tx":     m.inTx,
				"":            func(*rapid.T) {},
			})
			m.compare()
			if err := errors.Join(m.store.Close(), m.other.Close()); err != nil {
				r.Fatal(err)
			}
		})
	})
}

// A model makes the same calls to a store and to es.Mem.
type model struct {
	*testing.T
	r            *rapid.T
	conn         *pgx.Conn
	run          int
	store, other *postgres.Store
	mem          *es.Mem
	base         es.Position
}

func (m *model) stream(r *rapid.T) es.Stream {
	return es.Stream{Kind: fmt.Sprint("run", m.run), ID: rapid.SampledFrom([]string{"1", "2", "3"}).Draw(r, "stream")}
}

// call draws one call of Append. Versions are near the heads, so that some are right and some are not.
func (m *model) call(r *rapid.T) []es.Append {
	call := make([]es.Append, rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(r, "appends"))
	heads := make(map[es.Stream]es.Version)
	for i := range call {
		a := &call[i]
		a.Stream = m.stream(r)
		head, known := heads[a.Stream]
		if !known {
			head = es.Version(len(collect(m, m.mem.Read(m.Context(), a.Stream, 0))))
		}
		a.Expected = max(es.AnyVersion, head+rapid.SampledFrom([]es.Version{0, 0, 0, 0, 1, 2, -1, -100}).Draw(r, "expected"))
		a.Events = events(rapid.SampledFrom([]int{1, 1, 1, 0, 2}).Draw(r, "events"))
		a.Command = rapid.SampledFrom([]string{"", "", "", "x", "y"}).Draw(r, "command")
		if len(a.Events) > 0 && rapid.Bool().Draw(r, "meta") {
			a.Events[0].Meta = map[string]string{"by": a.Command}
		}
		heads[a.Stream] = head + es.Version(len(a.Events))
	}
	if es.CheckAppends(call...) != nil {
		return call[:1] // a command twice in one call
	}
	return call
}

func (m *model) batch(r *rapid.T) {
	calls := make([][]es.Append, rapid.IntRange(1, 8).Draw(r, "calls"))
	for i := range calls {
		calls[i] = m.call(r)
	}
	positions, errs := m.store.WriteTogether(m.Context(), calls...)
	for i := range calls {
		m.judge(r, calls[i], positions[i], errs[i])
	}
}

func (m *model) elsewhere(r *rapid.T) {
	call := m.call(r)
	position, err := m.other.Append(m.Context(), call...)
	m.judge(r, call, position, err)
}

func (m *model) inTx(r *rapid.T) {
	call := m.call(r)
	tx, err := m.conn.Begin(m.Context())
	if err != nil {
		r.Fatal(err)
	}
	position, verdict := m.store.In(tx).Append(m.Context(), call...)
	if rapid.Bool().Draw(r, "commit") {
		err = tx.Commit(m.Context())
		m.judge(r, call, position, verdict)
	} else {
		err = tx.Rollback(m.Context())
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (m *model) read(r *rapid.T) {
	stream := m.stream(r)
	after := es.Version(rapid.IntRange(0, 3).Draw(r, "after"))
	got, want := collect(m, m.store.Read(m.Context(), stream, after)), collect(m, m.mem.Read(m.Context(), stream, after))
	m.same(r, got, want)
}

// judge makes a call to Mem and expects the same verdict.
func (m *model) judge(r *rapid.T, call []es.Append, position es.Position, err error) {
	want, wantErr := m.mem.Append(m.Context(), call...)
	if want > 0 {
		want += m.base
	}
	if position != want {
		r.Errorf("append of %v returned position %d, want %d", call, position, want)
	}
	var conflict, wantConflict *es.ConflictError
	var duplicate, wantDuplicate *es.DuplicateError
	errors.As(err, &conflict)
	errors.As(wantErr, &wantConflict)
	errors.As(err, &duplicate)
	errors.As(wantErr, &wantDuplicate)
	if diff := cmp.Diff([]any{wantConflict, wantDuplicate, wantErr == nil}, []any{conflict, duplicate, err == nil}); diff != "" {
		r.Fatalf("append of %v returned %v, want %v\n%s", call, err, wantErr, diff)
	}
}

func (m *model) compare() {
	got := collect(m, m.store.All(m.Context(), m.base, es.Filter{}))
	m.same(m.r, got, collect(m, m.mem.All(m.Context(), 0, es.Filter{})))
}

func (m *model) same(r *rapid.T, got, want []es.Record) {
	for i := range want {
		want[i].Position += m.base
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(es.Record{}, "Time"), cmpopts.EquateEmpty()); diff != "" {
		r.Fatalf("the log differs from Mem's (-want +got):\n%s", diff)
	}
}
