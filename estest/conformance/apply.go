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

// applyClauses are about one worker that applies what comes.
func applyClauses() []clause {
	return []clause{
		{"projection applies every record once and in order",
			"Those that are there when it begins and those that come while it runs. A record that is skipped or comes twice makes a balance that is wrong, and nobody notices.",
			appliesAll},
		{"projection resumes at its checkpoint",
			"The checkpoint is kept in the database. One that begins anew with each start applies everything twice.",
			appliesOn},
		{"failed handler leaves no writes",
			"The transaction is rolled back, with the checkpoint. What stays of an attempt that failed is there twice after the next one.",
			appliesAtomically},
		{"batch has 1 to Batch records",
			"A handler may index the first record, and size its statements by Batch.",
			appliesInBatches},
		{"filter selects records and the checkpoint passes the rest",
			"Who waits for a position must not wait for ever because the filter held its record back.",
			appliesFiltered},
		{"Prepare runs once before the first record",
			"It makes the tables. One that comes with every start would empty a read model whose checkpoint says that it is full.",
			preparesOnce},
		{"failed Prepare leaves nothing behind",
			"It is in the transaction that sets the checkpoints, so the next start prepares again.",
			prepareFails},
		{"projection catches up with an empty log",
			"A program that waits for its read model would otherwise not start until the first event of its life.",
			catchesUpWithNothing},
		{"OnCaughtUp runs once after the existing records",
			"It is where a program begins to use the read model. Too early, and it shows half of the accounts.",
			catchesUpOnce},
		{"error of OnCaughtUp ends the run",
			"It was to switch the program over. Going on as if it had is worse than stopping.",
			catchUpFails},
		{"OnProgress reports transactions one at a time",
			"The records it counts are those applied, and its cursor the checkpoint: a bar that is drawn from it ends where the log does.",
			progresses},
		{"cancelled run returns after its handlers",
			"A handler that is still at work after Project has returned writes to a database that is being closed.",
			endsWithContext},
		{"invalid projection is refused",
			"The error wraps es.ErrInvalid, and nothing was made for it in the database.",
			refusesInvalid},
	}
}

// streams appends to a few streams in turn, one record at a time.
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
		t.ends(r)
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
			return errMend
		}
		return err
	}
	t.project(s, p)
	t.reach(s, p.Name, last)
	if failed != 1 {
		t.Errorf("a batch of 6 did not begin at position 7")
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
	t.ends(r)
	for _, n := range sizes {
		if n < 1 || n > 7 {
			t.Errorf("a handler with a Batch of 7 was given %d records at once, of %d", n, sizes)
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
		t.ends(r)
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
	p.Prepare = func(ctx context.Context, tx any) error { return errors.Join(empty(ctx, tx), errMend) }
	if err := t.stops(t.project(s, p)); !errors.Is(err, errMend) {
		t.Errorf("Project returned %v: want the error of Prepare", err)
	}
	p.Prepare = func(context.Context, any) error { panic(errMend) }
	err := t.stops(t.project(s, p))
	if panicked := (*es.PanicError)(nil); !errors.As(err, &panicked) || !errors.Is(err, errMend) {
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
	t.ends(r)
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
	p.OnCaughtUp = func(context.Context) error { return errMend }
	if err := t.stops(t.project(s, p)); !errors.Is(err, errMend) {
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
			t.Errorf("OnProgress was called while it was under way")
			return
		}
		defer mu.Unlock()
		records += g.Records
		if g.Shard != "0/1" || g.Cursor < cursor || g.End < g.Cursor || g.Records > 90 || g.Records > 0 && g.At != es.Position(g.Cursor) {
			t.Errorf("OnProgress was told %+v after the cursor %d", g, cursor)
		}
		cursor = g.Cursor
	}
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	t.ends(r)
	if records != 1000 || cursor != projection.Cursor(last) {
		t.Errorf("OnProgress was told of %d records up to the cursor %d: want 1000 up to %d", records, cursor, last)
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
		rest(t.ctx, 20*time.Millisecond)
		out.Store(true)
		return ctx.Err()
	}
	r := t.project(s, p)
	t.await(in, "the handler is called")
	t.ends(r)
	if !out.Load() {
		t.Errorf("Project returned while the handler was still at work")
	}
	ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	p = t.listing("idle")
	if err := s.Project(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Project returned %v when its time was over: want the context's error", err)
	}
	if n := len(t.lines("ends")); n > 0 {
		t.Errorf("%d records are applied of a handler that never came to its end", n)
	}
}

func refusesInvalid(t *trial) {
	s := t.side()
	for what, p := range map[string]anyProjection{
		"no name":                 {},
		"a name with a NUL byte":  {Name: "a\x00b"},
		"a name that is no UTF-8": {Name: "a\xffb"},
		"a name that is too long": {Name: string(make([]byte, es.MaxKind+1))},
		"a version below 0":       {Name: "a", Version: -1},
		"partitions below 0":      {Name: "a", Partitions: -1},
		"a batch below 0":         {Name: "a", Batch: -1},
		"a lease below 0":         {Name: "a", Lease: -1},
		"an OnError that is none": {Name: "a", OnError: 7},
		"no handler":              {Name: "a"},
	} {
		if what != "no handler" {
			p.Handle = func(context.Context, any, []es.Record) error { return nil }
		}
		if err := s.Project(t.ctx, p); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("Project of one with %s returned %v: want an error that wraps es.ErrInvalid", what, err)
		}
	}
	if err := s.React(t.ctx, projection.Reaction{Name: "a"}); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("React of one without a handler returned %v: want an error that wraps es.ErrInvalid", err)
	}
	if all, err := s.Status(t.ctx); len(all) > 0 || err != nil {
		t.Errorf("Status returned %+v and %v after projections that were refused: want none", all, err)
	}
}
