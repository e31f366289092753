package conformance

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/thalo-go/es"
)

// rebuildClauses are about read models that are built anew.
func rebuildClauses() []clause {
	return []clause{
		{"Rebuild restarts a running projection",
			"Prepare empties the read model in the transaction that sets the checkpoints back, so that nothing of before is left and nothing comes twice.",
			rebuilds},
		{"Rebuild of an idle projection takes effect at its next run",
			"The wish is kept in the database.",
			rebuildsLater},
		{"Rebuild discards parked records",
			"Its records come again from the source.",
			rebuildsParked},
		{"new version is built beside the old one",
			"The old read model stays as it is, and goes on, until the new one has caught up and the program has switched.",
			versions},
		{"Forget refuses a running projection and deletes a stopped one",
			"The next run begins anew. To forget the checkpoints of a running projection would let it apply everything twice.",
			forgets},
		{"Rebuild and Forget refuse an unknown projection",
			"The error wraps es.ErrInvalid: the name is misspelt.",
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
		t.Errorf("Prepare was called %d times: want once at first and once for each of 3 rebuilds", n)
	}
}

func rebuildsLater(t *trial) {
	s := t.side()
	p := t.listing("later")
	r := t.project(s, p)
	t.reach(s, p.Name, t.appendSome(s, 10))
	t.ends(r)
	if err := s.Rebuild(t.ctx, p.Name, 0); err != nil {
		t.Fatalf("Rebuild returned %v", err)
	}
	t.enlisted(p.Name, s, es.Filter{}) // it still serves
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
		t.Errorf("%d lines are there after a rebuild that was to make 2 of 10 records", n)
	}
}

func rebuildsParked(t *trial) {
	s := t.side()
	var mended atomic.Bool
	p := t.parking("unparked", func() bool { return !mended.Load() })
	last := t.writeMixed(s)
	t.project(s, p)
	t.reach(s, p.Name, last)
	mended.Store(true)
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
	t.until("the old one has come as far", func() bool { return len(t.lines("one")) == 40 })
	t.enlisted("one", s, es.Filter{})
	if n := len(t.status(s, p.Name)); n != 2 {
		t.Errorf("Status tells of %d: want both versions", n)
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
	t.ends(r)
	if err := s.Forget(t.ctx, p.Name, 0); err != nil {
		t.Errorf("Forget returned %v", err)
	}
	if n := len(t.status(s, p.Name)); n > 0 || len(t.parkedIDs(s)) > 0 {
		t.Errorf("%d shards and the parked records %v are there of a projection that was forgotten", n, t.parkedIDs(s))
	}
	t.project(s, t.listing(p.Name))
	t.reach(s, p.Name, last)
	t.enlisted(p.Name, s, es.Filter{})
}

func refusesUnknown(t *trial) {
	s := t.side()
	r := t.project(s, t.listing("known"))
	t.reach(s, "known", 0)
	t.ends(r)
	for what, ask := range map[string]func(ctx context.Context, name string, version int) error{"Rebuild": s.Rebuild, "Forget": s.Forget} {
		for _, err := range []error{ask(t.ctx, "unknown", 0), ask(t.ctx, "known", 1)} {
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%s of what is not there returned %v: want an error that wraps es.ErrInvalid", what, err)
			}
		}
	}
}
