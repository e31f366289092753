package es_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// watched is a log that records the calls of one follower. It needs a synctest bubble.
type watched struct {
	es.Log
	changed, all []es.Position // the after of each
	open         int           // Alls that have begun and not ended
}

func (w *watched) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	w.changed = append(w.changed, after)
	return w.Log.Changed(ctx, after)
}

func (w *watched) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		w.all = append(w.all, after)
		w.open++
		defer func() { w.open-- }()
		w.Log.All(ctx, after, filter)(yield)
	}
}

// write appends one event of each type to a stream of the kind "tally".
func write(t *testing.T, log es.Log, types ...string) {
	t.Helper()
	for i, name := range types {
		stream := es.Stream{Kind: "tally", ID: fmt.Sprint(i % 3)}
		if _, err := log.Append(t.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: []es.Record{{Type: name}}}); err != nil {
			t.Error(err)
		}
	}
}

// follower is Follow in its own goroutine. Its records may be read while the bubble is idle.
type follower struct {
	seen []es.Position
	err  error
	done bool
}

func follow(ctx context.Context, log es.Log, after es.Position, filter es.Filter) *follower {
	f := &follower{}
	go func() {
		defer func() { f.done = true }()
		for r, err := range es.Follow(ctx, log, after, filter) {
			if err != nil && f.err != nil {
				f.err = fmt.Errorf("a second error: %w", err)
				return
			}
			if err != nil {
				f.err = err
				continue // Follow has to end by itself
			}
			f.seen = append(f.seen, r.Position)
		}
	}()
	return f
}

func positions(from, to es.Position) []es.Position {
	var all []es.Position
	for p := from; p <= to; p++ {
		all = append(all, p)
	}
	return all
}

func TestFollow(t *testing.T) {
	t.Run("returns all records in order while they are written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new(es.Mem)
			ctx, cancel := context.WithCancel(t.Context())
			f := follow(ctx, log, 0, es.Filter{})
			for range 20 {
				go write(t, log, "a", "b", "c", "d", "e")
			}
			synctest.Wait()
			cancel()
			synctest.Wait()
			if diff := cmp.Diff(positions(1, 100), f.seen); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("returns what its own loop body writes", func(t *testing.T) {
		log := new(es.Mem)
		write(t, log, "0")
		var types []string
		for r, err := range es.Follow(t.Context(), log, 0, es.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if types = append(types, r.Type); len(types) == 4 {
				break
			}
			write(t, log, fmt.Sprint(len(types)))
		}
		if diff := cmp.Diff([]string{"0", "1", "2", "3"}, types); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("begins behind the position", func(t *testing.T) {
		log := new(es.Mem)
		write(t, log, "a", "b", "c")
		for r, err := range es.Follow(t.Context(), log, 2, es.Filter{}) {
			if err != nil || r.Position != 3 {
				t.Errorf("began at %d, %v; want 3", r.Position, err)
			}
			break
		}
	})
	t.Run("begins at the beginning with a negative position", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := &watched{Log: new(es.Mem)}
			ctx, cancel := context.WithCancel(t.Context())
			f := follow(ctx, log, -7, es.Filter{})
			synctest.Wait()
			if diff := cmp.Diff([]es.Position{0}, log.changed); diff != "" {
				t.Errorf("an empty log must be waited for, not read again: %s", diff)
			}
			write(t, log, "a", "b")
			synctest.Wait()
			cancel()
			synctest.Wait()
			if diff := cmp.Diff(positions(1, 2), f.seen); diff != "" {
				t.Error(diff)
			}
		})
	})
}

func TestFollowWithAFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &watched{Log: new(es.Mem)}
		write(t, log, "dull", "dull", "dull")
		ctx, cancel := context.WithCancel(t.Context())
		f := follow(ctx, log, 0, es.Filter{Types: []string{"rare"}})
		synctest.Wait()
		if diff := cmp.Diff([]es.Position{0, 3}, log.changed); diff != "" {
			t.Errorf("the filter hides all there is, so Follow must wait behind the end and not spin: %s", diff)
		}
		for range 3 {
			write(t, log, "dull")
			synctest.Wait()
		}
		if diff := cmp.Diff([]es.Position{0, 3, 4, 5}, log.all); diff != "" {
			t.Errorf("what the filter hid must not be read again: %s", diff)
		}
		write(t, log, "rare", "dull", "rare")
		synctest.Wait()
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([]es.Position{7, 9}, f.seen); diff != "" {
			t.Errorf("what the filter lets through later: %s", diff)
		}
	})
}

// growing is a log to which a record is appended between a follower's calls of Changed and All.
type growing struct {
	es.Log
	grow func()
}

func (g *growing) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	if g.grow != nil {
		g.grow()
		g.grow = nil
	}
	return g.Log.All(ctx, after, filter)
}

func TestFollowSeesRecordsAppendedBetweenItsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &growing{Log: new(es.Mem)}
		write(t, log, "dull")
		log.grow = func() { write(t, log.Log, "rare", "dull") }
		ctx, cancel := context.WithCancel(t.Context())
		f := follow(ctx, log, 0, es.Filter{Types: []string{"rare"}})
		synctest.Wait()
		write(t, log, "rare")
		synctest.Wait()
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([]es.Position{2, 4}, f.seen); diff != "" {
			t.Error(diff)
		}
	})
}

// torn is a log whose reads fail after the first record.
type torn struct{ es.Log }

var errTorn = errors.New("torn")

func (l torn) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range l.Log.All(ctx, after, filter) {
			if yield(r, err) {
				yield(es.Record{}, errTorn)
			}
			return
		}
	}
}

func TestFollowEnds(t *testing.T) {
	t.Run("with an AheadError if the position is beyond the end", func(t *testing.T) {
		log := new(es.Mem)
		write(t, log, "a", "b")
		var errs []error
		for r, err := range es.Follow(t.Context(), log, 3, es.Filter{}) {
			if err == nil {
				t.Fatalf("returned %s", r.ID())
			}
			errs = append(errs, err)
		}
		var ahead *es.AheadError
		if len(errs) != 1 || !errors.As(errs[0], &ahead) || *ahead != (es.AheadError{After: 3, Head: 2}) {
			t.Errorf("ended with %v; want one AheadError, after 3, head 2", errs)
		}
	})
	t.Run("with its context while it waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new(es.Mem)
			write(t, log, "a")
			ctx, cancel := context.WithCancel(t.Context())
			f := follow(ctx, log, 0, es.Filter{})
			synctest.Wait()
			if f.done {
				t.Fatalf("ended too early, with %v", f.err)
			}
			cancel()
			synctest.Wait()
			if !f.done || f.err != context.Canceled {
				t.Errorf("ended: %v, with %v; want context.Canceled, once", f.done, f.err)
			}
		})
	})
	t.Run("with its context while it reads", func(t *testing.T) {
		log := new(es.Mem)
		write(t, log, "a", "b", "c")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var seen []es.Position
		var last error
		for r, err := range es.Follow(ctx, log, 0, es.Filter{}) {
			cancel()
			if last = err; err == nil {
				seen = append(seen, r.Position)
			}
		}
		if !slices.Equal(seen, positions(1, 1)) || !errors.Is(last, context.Canceled) {
			t.Errorf("saw %v, ended with %v; want position 1 and context.Canceled", seen, last)
		}
	})
	t.Run("with the error of the log, once", func(t *testing.T) {
		log := new(es.Mem)
		write(t, log, "a", "b")
		var seen []string
		for r, err := range es.Follow(t.Context(), torn{log}, 0, es.Filter{}) {
			seen = append(seen, fmt.Sprint(r.Position, err))
		}
		if diff := cmp.Diff([]string{"1 <nil>", "0 torn"}, seen); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("with break, which releases the read", func(t *testing.T) {
		log := &watched{Log: new(es.Mem)}
		write(t, log, "a", "b", "c")
		following := es.Follow(t.Context(), log, 0, es.Filter{})
		for n := range 2 {
			for r, err := range following {
				if err != nil || r.Position != 1 {
					t.Errorf("range %d began at %d, %v; want 1: ranging again begins again", n+1, r.Position, err)
				}
				break
			}
			if log.open != 0 {
				t.Errorf("break left %d reads open", log.open)
			}
		}
	})
}
