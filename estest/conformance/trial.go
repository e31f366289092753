package conformance

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// append calls Append, which must succeed.
func (t *trial) append(s es.Store, appends ...es.Append) es.Position {
	position, err := s.Append(t.ctx, appends...)
	if err != nil {
		t.Fatalf("Append(%s) returned %v", describe(appends), err)
	}
	return position
}

// refuse calls Append, which must fail, and returns the error.
func (t *trial) refuse(s es.Store, appends ...es.Append) error {
	_, err := s.Append(t.ctx, appends...)
	if err == nil {
		t.Fatalf("Append(%s) succeeded: want an error", describe(appends))
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

// collect reads a sequence that must not have an error.
func (t *trial) collect(seq iter.Seq2[es.Record, error]) []es.Record {
	records, err := drain(seq)
	if err != nil {
		t.Fatalf("reading failed after %d records: %v", len(records), err)
	}
	return records
}

// drain reads a sequence to its end or its error.
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

// empty checks that streams have no records.
func (t *trial) empty(s es.Store, after string, streams ...es.Stream) {
	for _, stream := range streams {
		if n := len(t.read(s, stream)); n > 0 {
			t.Errorf("%s: %s has %d records, want none", after, stream, n)
		}
	}
}

// equal checks that two values are equal.
func (t *trial) equal(what string, got, want any) {
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// race runs f in n goroutines at once and waits for them.
func (t *trial) race(n int, f func(i int)) {
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			defer t.recover()
			<-start
			f(i)
		})
	}
	close(start)
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

// until polls until a condition holds that nothing announces.
func (t *trial) until(what string, is func() bool) {
	for !is() {
		if t.ctx.Err() != nil {
			t.Fatalf("timeout waiting until %s%s", what, t.endedRuns())
		}
		pause(t.ctx, 2*time.Millisecond)
	}
}

// pause waits for a duration or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// flag is raised once; goroutines can wait for it.
type flag struct {
	once   sync.Once
	raised chan struct{}
}

func newFlag() *flag { return &flag{raised: make(chan struct{})} }

func (f *flag) raise() { f.once.Do(func() { close(f.raised) }) }

func (t *trial) await(f *flag, what string) {
	select {
	case <-f.raised:
	case <-t.ctx.Done():
		t.Fatalf("timeout waiting until %s%s", what, t.endedRuns())
	}
}
