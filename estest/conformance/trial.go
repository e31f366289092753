package conformance

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A clause is one promise of an interface, with the test that holds a backend to it.
type clause struct {
	name string // the promise, as a sentence
	why  string // the rule, and what breaking it leads to
	test func(*trial)
}

// A trial is one clause on one fresh database. It notes what it finds instead of telling a *testing.T,
// so that the suite can itself be tried on stores that are known to be broken.
type trial struct {
	// Each call opens another store on the same database. Those are set that the suite is about.
	store       func() es.Store
	log         func() es.Log
	snapshots   func() es.Snapshots
	leases      func() es.Leases
	checkpoints func() es.Checkpoints
	side        func() ReadSide[any]
	lists       Lists[any]
	source      func() projection.Source

	ctx      context.Context // ends when patience does
	patience time.Duration   // how long a clause may take before the store counts as blocked
	many     int             // records in a stream that is long
	large    bool            // whether to try the limits on bytes, which moves 80 MiB

	mu    sync.Mutex
	found []string
	runs  []*projecting
}

// try runs the clause and returns what it found. A store that blocks where it must not is a finding too, so try does not wait for ever:
// calls that obey their context return when patience ends, and those that do not are left behind.
func (c clause) try(ctx context.Context, t *trial) []string {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	t.ctx = ctx
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.recover()
		c.test(t)
	}()
	select {
	case <-done:
	case <-time.After(t.patience + t.patience/2):
		t.Errorf("a call is blocked: it has not returned for %v, nor when its context ended", t.patience)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.found)
}

// recover notes a panic as a finding, so that one clause does not keep the others from being tried.
func (t *trial) recover() {
	if v := recover(); v != nil { //nolint:revive // this is deferred, under its own name
		t.Errorf("panic: %v\n%s", v, debug.Stack())
	}
}

// Errorf notes a finding.
func (t *trial) Errorf(format string, args ...any) {
	text := fmt.Sprintf("%s: %s", where(), fmt.Sprintf(format, args...))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found = append(t.found, text)
}

// Fatalf notes a finding and ends the goroutine that found it.
func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// where names the line of the clause that is running.
func where() string {
	pc := make([]uintptr, 16)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	for {
		frame, more := frames.Next()
		if file := filepath.Base(frame.File); file != "trial.go" && !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", file, frame.Line)
		}
		if !more {
			return "trial.go"
		}
	}
}

// append appends what must be taken.
func (t *trial) append(s es.Store, appends ...es.Append) es.Position {
	position, err := s.Append(t.ctx, appends...)
	if err != nil {
		t.Fatalf("Append(%s) was refused: %v", describe(appends), err)
	}
	return position
}

// refuse appends what must not be taken, and returns the error.
func (t *trial) refuse(s es.Store, appends ...es.Append) error {
	_, err := s.Append(t.ctx, appends...)
	if err == nil {
		t.Fatalf("Append(%s) was taken: want an error", describe(appends))
	}
	return err
}

// read returns the records of a stream.
func (t *trial) read(s es.Store, stream es.Stream) []es.Record {
	return t.collect(s.Read(t.ctx, stream, 0))
}

// all returns the records of a log.
func (t *trial) all(l es.Log) []es.Record {
	return t.collect(l.All(t.ctx, 0, es.Filter{}))
}

// collect reads what must come without an error.
func (t *trial) collect(seq iter.Seq2[es.Record, error]) []es.Record {
	records, err := drain(seq)
	if err != nil {
		t.Fatalf("reading broke off after %d records: %v", len(records), err)
	}
	return records
}

// drain reads to the end, or to the error.
func drain(seq iter.Seq2[es.Record, error]) ([]es.Record, error) {
	var records []es.Record
	for r, err := range seq {
		if err != nil {
			return records, err
		}
		records = append(records, r)
	}
	return records, nil
}

// empty asserts that nothing was written to some streams.
func (t *trial) empty(s es.Store, after string, streams ...es.Stream) {
	for _, stream := range streams {
		if n := len(t.read(s, stream)); n > 0 {
			t.Errorf("%s: %s has %d records, want none", after, stream, n)
		}
	}
}

// equal asserts that two values are the same.
func (t *trial) equal(what string, got, want any) {
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// race runs f in n goroutines at once, and waits for all.
func (t *trial) race(n int, f func(i int)) {
	var all sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		all.Go(func() {
			defer t.recover()
			<-begin
			f(i)
		})
	}
	close(begin)
	all.Wait()
}

// stores opens several stores on the database.
func (t *trial) stores(n int) []es.Store {
	stores := make([]es.Store, n)
	for i := range stores {
		stores[i] = t.store()
	}
	return stores
}

func stream(id string) es.Stream { return es.Stream{Kind: "estest", ID: id} }

func event(data string) es.Record { return es.Record{Type: "happened", Data: []byte(data)} }

// events returns n events with the data 1, 2, 3 and so on.
func events(n int) []es.Record {
	records := make([]es.Record, n)
	for i := range records {
		records[i] = event(fmt.Sprint(i + 1))
	}
	return records
}

// add appends n events behind whatever is there.
func add(stream es.Stream, n int) es.Append {
	return es.Append{Stream: stream, Expected: es.AnyVersion, Events: events(n)}
}

func describe(appends []es.Append) string {
	if len(appends) > 4 {
		return fmt.Sprintf("%d values, the first of them %s", len(appends), describe(appends[:1]))
	}
	text := ""
	for i, a := range appends {
		if i > 0 {
			text += "; "
		}
		text += fmt.Sprintf("%d events to %.60q at version %d", len(a.Events), a.Stream, a.Expected)
		if a.Expected == es.AnyVersion {
			text = text[:len(text)-len("version -1")] + "any version"
		}
		if a.Command != "" {
			text += fmt.Sprintf(" by command %.60q", a.Command)
		}
	}
	return text
}

// data returns the data of records, as text.
func data(records []es.Record) []string {
	texts := make([]string, len(records))
	for i, r := range records {
		texts[i] = string(r.Data)
	}
	return texts
}
