package conformance

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// whyClauses test what a store says about a projection that is behind.
func whyClauses() []clause {
	return []clause{
		{"Why names what keeps a projection from working",
			"No worker, an error, a source that does not answer: each has another remedy. The wrong one costs the operator the night.",
			saysWhatHalts},
		{"Why tells a projection that advances from one that does not",
			"Both lag and report no error. One reaches the end, the other needs an operator.",
			saysWhatLags},
		{"Why names shards that are waited for, and timers",
			"A shard at a barrier and a reaction with timers have records left, and nothing is wrong with them.",
			saysWhatWaits},
	}
}

// why waits until Why returns a code, and checks that its message has some texts.
func (t *trial) why(s ReadSide[any], name string, want projection.CauseCode, texts ...string) {
	var last projection.Cause
	t.until("Why of "+name+" is "+string(want), func() (is bool) {
		var err error
		if last, err = s.Why(t.ctx, name, 0); errors.Is(err, es.ErrInvalid) {
			return false // its run has not begun
		} else if err != nil {
			t.Fatalf("Why(%s) returned %v", name, err)
		}
		return last.Code == want
	})
	for _, text := range texts {
		if !strings.Contains(last.Message, text) {
			t.Errorf("Why(%s) says %q: want %q in it", name, last.Message, text)
		}
	}
	remedy := want != projection.CauseNone && want != projection.CauseFiltered && want != projection.CauseCatchingUp && want != projection.CauseNotDue
	if last.Message == "" || remedy != (last.Remedy != "") {
		t.Errorf("Why(%s) is %+v: want a message, and a remedy only if there is something to do", name, last)
	}
}

func saysWhatHalts(t *trial) {
	s := t.side()
	_, err := s.Why(t.ctx, "never", 0)
	t.refused("Why of a projection that has never run", err, "never", "Status")

	alone := t.listing("alone")
	r := t.project(s, alone)
	t.reach(s, alone.Name, t.appendSome(s, 5))
	t.why(s, alone.Name, projection.CauseNone)
	t.cancel(r)
	t.why(s, alone.Name, projection.CauseNone) // nothing is left to do

	bad := t.appendBad(s, 3, 1)
	t.why(s, alone.Name, projection.CauseNoWorker)

	stops := t.listing("stops")
	stops.Handle = t.failingOn(stops.Name, always)
	_ = t.failure(s, stops)
	t.why(s, stops.Name, projection.CauseStopped, t.recordAt(s, bad-1), errHandler.Error())

	fails := t.listing("fails")
	fails.Handle, fails.Retries = t.failingOn(fails.Name, always), 1000
	t.project(s, fails)
	t.why(s, fails.Name, projection.CauseFailing, errHandler.Error())

	t.appendNewer(s, "a")
	older := t.listing("older")
	older.OnError = es.Park
	t.project(s, t.older(older))
	t.why(s, older.Name, projection.CauseUnknownType, newer)

	away := t.listing("away")
	away.Source = awaySource{projection.FromLog(s)}
	t.project(s, away)
	t.why(s, away.Name, projection.CauseSource, errHandler.Error(), s.ID())
}

// recordAt names the record at a position.
func (t *trial) recordAt(l es.Log, at es.Position) string {
	for r, err := range l.All(t.ctx, at-1, es.Filter{}) {
		if err != nil {
			t.Fatalf("All returned %v", err)
		}
		return r.ID()
	}
	return ""
}

// awaySource is a source that does not answer.
type awaySource struct{ projection.Source }

// Feed implements [projection.Source].
func (awaySource) Feed(context.Context, string, projection.Cursor, es.Filter) (projection.Feed, error) {
	return nil, errHandler
}

func saysWhatLags(t *trial) {
	s := t.side()
	done := make(chan struct{})
	var r projection.Reaction
	slow := func(handle func(ctx context.Context)) func(context.Context, es.Record) error {
		return func(ctx context.Context, _ es.Record) error {
			handle(ctx)
			return nil
		}
	}
	t.appendSome(s, 2000)
	r = projection.Reaction{Name: "slow", From: projection.Beginning(), Batch: 1, Handle: slow(func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	})}
	t.react(s, r)
	t.why(s, r.Name, projection.CauseCatchingUp)
	if c, err := s.Why(t.ctx, r.Name, 0); err != nil || c.Left <= 0 {
		t.Errorf("Why returned %+v and %v: want the time that is left", c, err)
	}
	r.Name = "stuck"
	r.Handle = slow(func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-done:
		}
	})
	t.react(s, r)
	t.why(s, r.Name, projection.CauseHandling, t.recordAt(s, 1))
	close(done)

	held := t.listing("held back")
	held.Filter = es.Filter{Kinds: []string{"other"}}
	held.Source = stalledSource{projection.FromLog(s)}
	t.project(s, held)
	t.why(s, held.Name, projection.CauseFiltered)
}

// stalledSource is a source whose records do not come.
type stalledSource struct{ projection.Source }

// Feed implements [projection.Source].
func (s stalledSource) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
	feed, err := s.Source.Feed(ctx, shard, after, filter)
	return stalledFeed{feed}, err
}

type stalledFeed struct{ projection.Feed }

// Next implements [projection.Feed].
func (stalledFeed) Next(ctx context.Context, _ int) (projection.Batch, error) {
	<-ctx.Done()
	return projection.Batch{}, ctx.Err()
}

func saysWhatWaits(t *trial) {
	s, j, h := t.side(), new(journal), newHand()
	timed := t.timed("timed", j, h, nil)
	t.react(s, timed)
	t.reach(s, timed.Name, t.appendSome(s, 20))
	t.why(s, timed.Name, projection.CauseNotDue)

	first := t.all(s)[0].Stream
	wait := make(chan struct{})
	r := projection.Reaction{Name: "divided", From: projection.Beginning(), Partitions: 2, Handle: func(ctx context.Context, r es.Record) error {
		if r.Stream == first {
			select {
			case <-ctx.Done():
			case <-wait:
			}
		}
		return nil
	}}
	t.react(s, r)
	t.until("one of two shards is at the end", func() bool {
		status := t.status(s, r.Name)
		return len(status) == 2 && max(status[0].Cursor, status[1].Cursor) == 20
	})
	r.Partitions = 3
	t.react(s, r)
	t.why(s, r.Name, projection.CauseRepartition, "wait at 20", "divided into 3")
	close(wait)
	t.reach(s, r.Name, 20)
	t.why(s, r.Name, projection.CauseNone)
}
