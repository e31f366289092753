package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// applyClauses test one worker that applies records.
func applyClauses() []clause {
	return []clause{
		{"projection applies every record once and in order",
			"This covers the records present at the start and those appended while it runs. A record that is skipped or applied twice makes the read model silently wrong.",
			appliesAll},
		{"projection resumes at its checkpoint",
			"The checkpoint is stored in the database. A projection that starts from the beginning applies everything twice.",
			appliesOn},
		{"failed handler leaves no writes",
			"The transaction is rolled back together with the checkpoint. What remains of a failed attempt is applied twice after the retry.",
			appliesAtomically},
		{"batch has 1 to Batch records",
			"Handlers may index the first record and size their statements by Batch. An empty or larger batch makes them panic or fail.",
			appliesInBatches},
		{"filter selects records and the checkpoint passes the rest",
			"The handler gets the matching records only, and the checkpoint also moves past the others. Otherwise WaitFor never returns for a position that the filter excludes.",
			appliesFiltered},
		{"Prepare runs once before the first record",
			"Prepare creates or empties the tables. If it runs at every start, it empties a read model whose checkpoint says that it is complete.",
			preparesOnce},
		{"failed Prepare leaves nothing behind",
			"Prepare runs in the transaction that creates the checkpoints. If that transaction is committed after an error, the next start does not prepare again.",
			prepareFails},
		{"projection catches up with an empty log",
			"A program that waits for its read model would otherwise not start before the first event is appended.",
			catchesUpWithNothing},
		{"OnCaughtUp runs once after the existing records",
			"A program starts to use the read model in OnCaughtUp. If it runs too early, the program serves an incomplete read model.",
			catchesUpOnce},
		{"error of OnCaughtUp ends the run",
			"OnCaughtUp was to switch the program to the new read model. If its error is ignored, the program continues as if it had switched.",
			catchUpFails},
		{"OnProgress reports transactions one at a time",
			"Its counts are the records applied and its cursor is the checkpoint. Otherwise a progress bar does not end where the log ends.",
			progresses},
		{"cancelled run returns after its handlers",
			"Project returns the context's error once its handlers have returned. A handler that is still running writes to a database that is being closed.",
			endsWithContext},
		{"invalid projection is refused",
			"The error wraps es.ErrInvalid, and nothing is created in the database for it.",
			refusesInvalid},
	}
}

// appendSome appends n records to five streams in turn, one record per call.
func (t *trial) appendSome(l es.Log, n int) (last es.Position) {
	for i := range n {
		last = t.append(l, add(stream(fmt.Sprint("s", i%5)), 1))
	}
	return last
}

func appliesAll(t *trial) {
	s := t.side()
	t.append(s, add(stream("many"), 1500))
	t.appendSome(s, 5)
	t.project(s, t.listing("all"))
	for range 5 {
		t.reach(s, "all", t.appendSome(s, 3))
	}
	t.enlisted("all", s, es.Filter{})
}

func appliesOn(t *trial) {
	s := t.side()
	for range 4 {
		t.appendSome(s, 3)
		r := t.project(s, t.listing("on"))
		t.reach(s, "on", t.appendSome(s, 4))
		t.cancel(r)
	}
	t.enlisted("on", s, es.Filter{})
}

func appliesAtomically(t *trial) {
	s := t.side()
	last := t.appendSome(s, 20)
	p, failed := t.listing("atomic"), 0
	p.Batch = 6
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		err := t.enlist(ctx, tx, p.Name, records)
		if err == nil && records[0].Position == 7 && failed < 1 {
			failed++
			return errHandler
		}
		return err
	}
	t.project(s, p)
	t.reach(s, p.Name, last)
	if failed != 1 {
		t.Errorf("no batch of 6 started at position 7")
	}
	t.enlisted(p.Name, s, es.Filter{})
}

func appliesInBatches(t *trial) {
	s := t.side()
	last := t.append(s, add(stream("a"), 100))
	p := t.listing("batches")
	p.Batch = 7
	var sizes []int
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		sizes = append(sizes, len(records))
		return t.enlist(ctx, tx, p.Name, records)
	}
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	for _, n := range sizes {
		if n < 1 || n > 7 {
			t.Errorf("with a Batch of 7 the handler got %d records; the batches were %d", n, sizes)
			break
		}
	}
	t.enlisted(p.Name, s, es.Filter{})
}

func appliesFiltered(t *trial) {
	s := t.side()
	p := t.listing("filtered")
	p.Filter = es.Filter{Kinds: []string{"estest"}, Types: []string{"happened"}}
	t.project(s, p)
	for i := range 4 {
		t.reach(s, p.Name, t.appendSome(s, i))
		t.append(s, es.Append{Stream: stream("a"), Expected: es.AnyVersion, Events: []es.Record{{Type: "other"}}})
		t.reach(s, p.Name, t.append(s, es.Append{Stream: es.Stream{Kind: "other", ID: "a"}, Expected: es.AnyVersion, Events: events(2)}))
	}
	t.enlisted(p.Name, s, p.Filter)
}

func preparesOnce(t *trial) {
	s := t.side()
	p, prepared := t.listing("prepared"), 0
	empty := p.Prepare
	p.Prepare = func(ctx context.Context, tx any) error {
		prepared++
		return empty(ctx, tx)
	}
	for range 3 {
		r := t.project(s, p)
		t.reach(s, p.Name, t.appendSome(s, 2))
		t.cancel(r)
	}
	if prepared != 1 {
		t.Errorf("Prepare was called %d times in three runs: want once", prepared)
	}
	t.enlisted(p.Name, s, es.Filter{})
}

func prepareFails(t *trial) {
	s := t.side()
	last := t.appendSome(s, 3)
	p := t.listing("unprepared")
	empty := p.Prepare
	p.Prepare = func(ctx context.Context, tx any) error { return errors.Join(empty(ctx, tx), errHandler) }
	if err := t.wait(t.project(s, p)); !errors.Is(err, errHandler) {
		t.Errorf("Project returned %v: want the error of Prepare", err)
	}
	p.Prepare = func(context.Context, any) error { panic(errHandler) }
	err := t.wait(t.project(s, p))
	if panicked := (*es.PanicError)(nil); !errors.As(err, &panicked) || !errors.Is(err, errHandler) {
		t.Errorf("Project returned %v: want the panic of Prepare as a *es.PanicError", err)
	}
	p.Prepare = empty
	t.project(s, p)
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func catchesUpWithNothing(t *trial) {
	s := t.side()
	p, up := t.listing("empty"), newFlag()
	p.OnCaughtUp = func(context.Context) error {
		up.raise()
		return nil
	}
	t.project(s, p)
	t.await(up, "OnCaughtUp is called for an empty log")
	t.reach(s, p.Name, 0)
	t.reach(s, p.Name, t.appendSome(s, 1))
	t.enlisted(p.Name, s, es.Filter{})
}

func catchesUpOnce(t *trial) {
	s := t.side()
	t.append(s, add(stream("a"), 2000))
	p, up, calls, applied := t.listing("caught"), newFlag(), 0, 0
	p.Batch = 300
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		applied += len(records)
		return t.enlist(ctx, tx, p.Name, records)
	}
	p.OnCaughtUp = func(context.Context) error {
		calls++
		if n := len(t.lines(p.Name)); n < 2000 {
			t.Errorf("OnCaughtUp was called when %d of 2000 records were applied", n)
		}
		up.raise()
		return nil
	}
	r := t.project(s, p)
	t.await(up, "OnCaughtUp is called")
	t.reach(s, p.Name, t.appendSome(s, 5))
	t.cancel(r)
	if calls != 1 {
		t.Errorf("OnCaughtUp was called %d times in one run", calls)
	}
	if status := t.status(s, p.Name); len(status) != 1 || !status[0].CaughtUp {
		t.Errorf("Status says %+v: want one shard that has caught up", status)
	}
}

func catchUpFails(t *trial) {
	s := t.side()
	p := t.listing("unswitched")
	p.OnCaughtUp = func(context.Context) error { return errHandler }
	if err := t.wait(t.project(s, p)); !errors.Is(err, errHandler) {
		t.Errorf("Project returned %v: want the error of OnCaughtUp", err)
	}
}

func progresses(t *trial) {
	s := t.side()
	last := t.append(s, add(stream("a"), 1000))
	p := t.listing("progress")
	p.Batch = 90
	var mu sync.Mutex
	records, cursor := 0, projection.Cursor(0)
	p.OnProgress = func(g projection.Progress) {
		if !mu.TryLock() {
			t.Errorf("OnProgress was called concurrently")
			return
		}
		defer mu.Unlock()
		records += g.Records
		if g.Shard != "0/1" || g.Cursor < cursor || g.End < g.Cursor || g.Records > 90 || g.Records > 0 && g.Position != es.Position(g.Cursor) {
			t.Errorf("OnProgress got %+v after the cursor %d", g, cursor)
		}
		cursor = g.Cursor
	}
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.cancel(r)
	if records != 1000 || cursor != projection.Cursor(last) {
		t.Errorf("OnProgress reported %d records up to the cursor %d: want 1000 up to %d", records, cursor, last)
	}
}

func endsWithContext(t *trial) {
	s := t.side()
	t.appendSome(s, 3)
	p, in := t.listing("ends"), newFlag()
	var out atomic.Bool
	p.Handle = func(ctx context.Context, _ any, _ []es.Record) error {
		in.raise()
		<-ctx.Done()
		pause(t.ctx, 20*time.Millisecond)
		out.Store(true)
		return ctx.Err()
	}
	r := t.project(s, p)
	t.await(in, "the handler is called")
	t.cancel(r)
	if !out.Load() {
		t.Errorf("Project returned while the handler was still running")
	}
	ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	p = t.listing("idle")
	if err := s.Project(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Project returned %v when its context ended: want the context's error", err)
	}
	if n := len(t.lines("ends")); n > 0 {
		t.Errorf("%d records are applied by a handler that never returned nil", n)
	}
}

func refusesInvalid(t *trial) {
	s := t.side()
	for what, p := range map[string]anyProjection{
		"no name":                 {},
		"a name with a NUL byte":  {Name: "a\x00b"},
		"a name of invalid UTF-8": {Name: "a\xffb"},
		"a name that is too long": {Name: string(make([]byte, es.MaxKind+1))},
		"a version below 0":       {Name: "a", Version: -1},
		"partitions below 0":      {Name: "a", Partitions: -1},
		"a batch below 0":         {Name: "a", Batch: -1},
		"a lease below 0":         {Name: "a", Lease: -1},
		"an invalid OnError":      {Name: "a", OnError: 7},
		"no handler":              {Name: "a"},
	} {
		if what != "no handler" {
			p.Handle = func(context.Context, any, []es.Record) error { return nil }
		}
		if err := s.Project(t.ctx, p); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("Project with %s returned %v: want an error that wraps es.ErrInvalid", what, err)
		}
	}
	if err := s.React(t.ctx, projection.Reaction{Name: "a"}); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("React without a handler returned %v: want an error that wraps es.ErrInvalid", err)
	}
	if all, err := s.Status(t.ctx); len(all) > 0 || err != nil {
		t.Errorf("Status returned %+v and %v after refused projections: want none", all, err)
	}
}
