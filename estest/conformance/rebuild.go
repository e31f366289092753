package conformance

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/thalo-go/es"
)

// rebuildClauses test rebuilding and deleting read models, and versions of them.
func rebuildClauses() []clause {
	return []clause{
		{"Rebuild restarts a running projection",
			"Prepare empties the read model in the transaction that resets the checkpoints. Otherwise old rows remain or records are applied twice.",
			rebuilds},
		{"Rebuild of an idle projection takes effect at its next run",
			"The request is stored in the database. If it is lost, the read model keeps its old content.",
			rebuildsLater},
		{"Rebuild discards parked records",
			"They are read again from the source. If they stay parked, they are applied twice after a Retry.",
			rebuildsParked},
		{"new version is built beside the old one",
			"The old read model keeps being updated until the new one has caught up and the program has switched to it. Otherwise a deployment interrupts readers.",
			versions},
		{"Forget refuses a running projection and deletes a stopped one",
			"After Forget the next run starts from the beginning. Deleting the checkpoints of a running projection makes it apply everything twice.",
			forgets},
		{"Rebuild and Forget refuse an unknown projection",
			"The error wraps es.ErrInvalid. Otherwise a misspelt name looks like success.",
			refusesUnknown},
	}
}

func rebuilds(t *trial) {
	s := t.side()
	p := t.listing("rebuilt")
	p.Partitions = 2
	var prepared atomic.Int32
	empty := p.Prepare
	p.Prepare = func(ctx context.Context, tx any) error {
		prepared.Add(1)
		return empty(ctx, tx)
	}
	t.project(s, p)
	t.project(t.side(), p)
	for n := range int32(3) {
		t.reach(s, p.Name, t.appendSome(s, 40))
		if err := t.side().Rebuild(t.ctx, p.Name, 0); err != nil {
			t.Fatalf("Rebuild returned %v", err)
		}
		t.until("Prepare was called again", func() bool { return prepared.Load() == n+2 })
	}
	t.reach(s, p.Name, t.appendSome(s, 10))
	t.enlistedByStream(p.Name, s)
	if n := prepared.Load(); n != 4 {
		t.Errorf("Prepare was called %d times: want once at the start and once for each of 3 rebuilds", n)
	}
}

func rebuildsLater(t *trial) {
	s := t.side()
	p := t.listing("later")
	r := t.project(s, p)
	t.reach(s, p.Name, t.appendSome(s, 10))
	t.cancel(r)
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Fatalf("Rebuild returned %v", err)
	}
	t.enlisted(p.Name, s, es.Filter{}) // the old content is still readable
	up := newFlag()
	p.OnCaughtUp = func(context.Context) error {
		up.raise()
		return nil
	}
	p.Handle = func(ctx context.Context, tx any, records []es.Record) error {
		return t.enlist(ctx, tx, p.Name, slices.DeleteFunc(slices.Clone(records), func(r es.Record) bool { return r.Stream != stream("s1") }))
	}
	t.project(s, p)
	t.await(up, "OnCaughtUp is called")
	if n := len(t.lines(p.Name)); n != 2 {
		t.Errorf("after a rebuild of 2 of 10 records the list has %d lines", n)
	}
}

func rebuildsParked(t *trial) {
	s := t.side()
	var fixed atomic.Bool
	p := t.parking("unparked", func() bool { return !fixed.Load() })
	last := t.writeMixed(s)
	t.project(s, p)
	t.reach(s, p.Name, last)
	fixed.Store(true)
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Fatalf("Rebuild returned %v", err)
	}
	t.until("nothing is parked", func() bool { return len(t.parkedIDs(s)) == 0 })
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func versions(t *trial) {
	s := t.side()
	p := t.listing("one")
	p.Name = "versioned"
	t.project(s, p)
	last := t.appendSome(s, 30)
	t.reach(s, p.Name, last)
	next := t.listing("two")
	next.Name, next.Version = p.Name, 1
	up := newFlag()
	next.OnCaughtUp = func(context.Context) error {
		up.raise()
		return nil
	}
	t.project(s, next)
	t.await(up, "OnCaughtUp is called")
	t.reach(s, p.Name, t.appendSome(s, 10))
	t.enlisted("two", s, es.Filter{})
	t.until("the old version has applied all records", func() bool { return len(t.lines("one")) == 40 })
	t.enlisted("one", s, es.Filter{})
	if n := len(t.status(s, p.Name)); n != 2 {
		t.Errorf("Status returned %d entries: want both versions", n)
	}
}

func forgets(t *trial) {
	s := t.side()
	p := t.parking("forgotten", always)
	last := t.writeMixed(s)
	r := t.project(s, p)
	t.reach(s, p.Name, last)
	if err := s.Forget(t.ctx, p.Name, 0); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("Forget of a running projection returned %v: want an error that wraps es.ErrInvalid", err)
	}
	t.cancel(r)
	if err := s.Forget(t.ctx, p.Name, 0); err != nil {
		t.Errorf("Forget returned %v", err)
	}
	if n := len(t.status(s, p.Name)); n > 0 || len(t.parkedIDs(s)) > 0 {
		t.Errorf("after Forget there are %d shards and the parked records %v", n, t.parkedIDs(s))
	}
	t.project(s, t.listing(p.Name))
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func refusesUnknown(t *trial) {
	s := t.side()
	r := t.project(s, t.listing("known"))
	t.reach(s, "known", 0)
	t.cancel(r)
	for method, call := range map[string]func(ctx context.Context, name string, version int) error{"Rebuild": s.Rebuild, "Forget": s.Forget} {
		for _, err := range []error{call(t.ctx, "unknown", 0), call(t.ctx, "known", 1)} {
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%s of an unknown projection returned %v: want an error that wraps es.ErrInvalid", method, err)
			}
		}
	}
}
