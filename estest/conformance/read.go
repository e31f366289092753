package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"time"

	"github.com/thalo-go/es"
)

// reader reads the records of stream a, with Read or with All. The clauses about loops are run on both.
type reader func(context.Context) iter.Seq2[es.Record, error]

func ofStream(s es.Store) reader {
	return func(ctx context.Context) iter.Seq2[es.Record, error] { return s.Read(ctx, stream("a"), 0) }
}

func ofLog(l es.Log) reader {
	return func(ctx context.Context) iter.Seq2[es.Record, error] { return l.All(ctx, 0, es.Filter{}) }
}

const (
	whyHold = "No lock, connection or transaction is held while the loop body runs. Otherwise a body that calls the store deadlocks, " +
		"and a slow body blocks writers or uses up the connections."
	whyAgain   = "The sequence is reusable: ranging over it again reads again, including what was written since. Otherwise a caller works with old records."
	whyBreak   = "Loops are often left by break, return or panic. A connection, lock or goroutine that is then still held is never released, and enough of them block the store."
	whyContext = "When the context ends, the last pair is a zero Record and an error that wraps the context's. A loop that ends without an error looks complete, so a state would be built from some of its events only."
	whyMany    = "Each record is returned once and in order, however many there are. A store that reads in pages must not lose or repeat records between two pages."
)

// readClauses test reading one stream.
func readClauses() []clause {
	return []clause{
		{"Read returns the records after a version in order",
			"A Repo reads only the records after the version it has cached. One record too few or too many gives a wrong state.",
			readAfter},
		{"missing stream has no records",
			"Reading a missing stream is not an error. The first command on an aggregate starts with that read.",
			readNothing},
		{"long stream is read completely and in order", whyMany, longStream},
		{"Read holds nothing while the loop body runs", whyHold,
			func(t *trial) { s := t.store(); nothingHeld(t, s, ofStream(s)) }},
		{"ranging over Read again reads again", whyAgain,
			func(t *trial) { s := t.store(); rangeAgain(t, s, ofStream(s)) }},
		{"leaving a Read loop releases its resources", whyBreak,
			func(t *trial) { s := t.store(); leavingReleases(t, s, ofStream(s)) }},
		{"Read returns an error when its context ends", whyContext,
			func(t *trial) { s := t.store(); readingObeysContext(t, s, ofStream(s)) }},
	}
}

func readAfter(t *trial) {
	s := t.store()
	a := stream("a")
	for range 5 {
		t.append(s, add(a, 2), add(stream("b"), 1))
	}
	for _, test := range []struct {
		after es.Version
		from  int
		to    int
	}{{0, 1, 10}, {1, 2, 10}, {4, 5, 10}, {9, 10, 10}, {10, 11, 10}, {11, 12, 10}, {1 << 40, 1, 0}} {
		var got, want []es.Version
		for _, r := range t.collect(s.Read(t.ctx, a, test.after)) {
			if r.Stream != a {
				t.Fatalf("Read(%s) returned a record of %s", a, r.Stream)
			}
			got = append(got, r.Version)
		}
		for version := test.from; version <= test.to; version++ {
			want = append(want, es.Version(version))
		}
		t.equal(fmt.Sprintf("versions that Read returned after %d", test.after), got, want)
	}
}

func readNothing(t *trial) {
	s := t.store()
	t.empty(s, "in an empty store", stream("none"))
	t.append(s, add(stream("a"), 1))
	t.empty(s, "beside other streams", stream("none"), es.Stream{Kind: "none", ID: "a"})
	if records := t.collect(s.Read(t.ctx, stream("none"), 7)); len(records) > 0 {
		t.Errorf("a stream that does not exist has %d records after version 7", len(records))
	}
}

func longStream(t *trial) {
	s := t.store()
	a := stream("a")
	for n := 0; n < t.many; n += 1000 {
		t.append(s, add(stream("b"), 1), add(a, min(1000, t.many-n)))
	}
	for _, after := range []int{0, 1, t.many/2 - 1, t.many - 1} {
		next := after + 1
		for r, err := range s.Read(t.ctx, a, es.Version(after)) {
			if err != nil {
				t.Fatalf("Read returned %v", err)
			}
			if want := fmt.Sprint((next-1)%1000 + 1); r.Version != es.Version(next) || string(r.Data) != want {
				t.Fatalf("record %d after version %d is version %d with the data %q, want %d with %q", next-after, after, r.Version, r.Data, next, want)
			}
			next++
		}
		if next != t.many+1 {
			t.Fatalf("Read after %d ended at version %d, want %d", after, next-1, t.many)
		}
	}
}

func nothingHeld(t *trial, s es.Store, read reader) {
	const depth = 40 // more than the connections of a typical pool
	t.append(s, add(stream("a"), 5))
	bodies := 0
	for r, err := range read(t.ctx) {
		if err != nil {
			t.Fatalf("reading failed: %v", err)
		}
		if bodies++; bodies > 5 {
			break // records that the body wrote may be read as well
		}
		t.append(s, add(stream("a"), 1), add(stream("b"), 1))
		if n := len(t.read(s, stream("a"))); n != 5+bodies {
			t.Fatalf("inside the body for version %d, Read returned %d records, want %d", r.Version, n, 5+bodies)
		}
	}
	var nest func(level int)
	nest = func(level int) {
		if level == depth {
			t.append(s, add(stream("a"), 1))
			return
		}
		for _, err := range read(t.ctx) {
			if err != nil {
				t.Fatalf("with %d loops open the next one returned %v", level, err)
			}
			nest(level + 1)
			break
		}
	}
	nest(0)
}

func rangeAgain(t *trial, s es.Store, read reader) {
	t.append(s, add(stream("a"), 3))
	seq := read(t.ctx)
	first := t.collect(seq)
	t.equal("the second time", t.collect(seq), first)
	for range seq { //nolint:errcheck // only the inner loop matters
		t.equal("in a loop over the same sequence", t.collect(seq), first)
		break
	}
	t.append(s, add(stream("a"), 2))
	if n := len(t.collect(seq)); n != 5 {
		t.Errorf("ranging again after two more appends returned %d records, want 5", n)
	}
}

func leavingReleases(t *trial, s es.Store, read reader) {
	const loops, fewer = 300, 100
	for range 3 {
		t.append(s, add(stream("a"), 500))
	}
	before := runtime.NumGoroutine()
	for n := range loops {
		switch n % 3 {
		case 0:
			for range read(t.ctx) { //nolint:errcheck // the loop is left at once
				break
			}
		case 1:
			func() {
				defer func() { _ = recover() }()
				for range read(t.ctx) { //nolint:errcheck // the loop is left at once
					panic("in the loop body")
				}
			}()
		case 2:
			next, stop := iter.Pull2(read(t.ctx))
			_, _, _ = next()
			stop()
		}
	}
	if _, err := s.Append(t.ctx, add(stream("a"), 1)); err != nil {
		t.Fatalf("after leaving %d loops, Append returned %v", loops, err)
	}
	if _, err := drain(read(t.ctx)); err != nil {
		t.Fatalf("after leaving %d loops, reading returned %v", loops, err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(t.timeout / 10); runtime.NumGoroutine() > before+fewer; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("after leaving %d loops there are %d goroutines, before there were %d", loops, runtime.NumGoroutine(), before)
		}
	}
}

func readingObeysContext(t *trial, s es.Store, read reader) {
	for range 3 {
		t.append(s, add(stream("a"), 1000))
	}
	for _, after := range []int{0, 1, 100} {
		ctx, cancel := context.WithCancel(t.ctx)
		if after == 0 {
			cancel()
		}
		records, errs := 0, 0
		for r, err := range read(ctx) {
			switch {
			case errs > 0:
				t.Errorf("a loop whose context ended continued after the error, with %s and the error %v", r.ID(), err)
			case err == nil:
				records++
			case !errors.Is(err, context.Canceled):
				t.Errorf("a loop whose context ended returned %v: want an error that wraps context.Canceled", err)
			case r.Stream != es.Stream{} || r.Version != 0 || r.Position != 0 || r.Type != "" || r.Data != nil || r.Meta != nil || !r.Time.IsZero():
				t.Errorf("the error was returned with %+v: want a zero Record", r)
			}
			if err != nil {
				errs++
			}
			if records == after {
				cancel()
			}
		}
		cancel()
		if errs == 0 {
			t.Errorf("a loop whose context ended after %d records ended without an error after %d of 3000", after, records)
		}
	}
}
