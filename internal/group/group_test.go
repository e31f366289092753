package group_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/thalo-go/es/internal/group"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type call struct {
	group.Member
	name string
}

func names(calls []*call) (names []string) {
	for _, c := range calls {
		names = append(names, c.name)
	}
	return names
}

func expect(t *testing.T, calls []*call, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, names(calls)); diff != "" {
		t.Errorf("calls differ (-want +got):\n%s", diff)
	}
}

// busy returns a group that works, and calls that wait in it.
func busy(t *testing.T, names ...string) (*group.Group[*call], map[string]*call) {
	t.Helper()
	g, calls := &group.Group[*call]{}, make(map[string]*call)
	if !g.Join(&call{name: "leader"}) {
		t.Fatal("a caller that joins an idle group does not lead")
	}
	for _, name := range names {
		calls[name] = &call{name: name}
		if g.Join(calls[name]) {
			t.Fatalf("%s leads a group that works", name)
		}
	}
	return g, calls
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func TestRounds(t *testing.T) {
	t.Run("callers that wait are taken in order", func(t *testing.T) {
		g, calls := busy(t, "a", "b", "c")
		if !g.Next() {
			t.Fatal("Next reports that no caller waits")
		}
		round := g.Take(nil)
		expect(t, round.Calls, "a", "b", "c")
		group.Answer(round.Calls...)
		for _, c := range calls {
			if !closed(c.Done()) {
				t.Errorf("%s is not answered", c.name)
			}
		}
	})
	t.Run("a group that no caller waits in is idle again", func(t *testing.T) {
		g, _ := busy(t)
		if g.Next() || g.Busy() {
			t.Error("the group is busy")
		}
		if !g.Join(&call{}) {
			t.Error("the next caller does not lead")
		}
	})
	t.Run("a group whose callers have all left is idle again", func(t *testing.T) {
		g, calls := busy(t, "a")
		g.Leave(calls["a"])
		if g.Next() || g.Joined() != 0 {
			t.Error("the group is busy")
		}
	})
	t.Run("a round ends before the call that does not fit", func(t *testing.T) {
		g, _ := busy(t, "a", "b", "large", "c")
		fits := func(c *call, first bool) bool { return first || c.name != "large" }
		expect(t, g.Take(fits).Calls, "a", "b")
		if n := g.Waiting(); n != 2 {
			t.Errorf("%d calls wait, want 2", n)
		}
		expect(t, g.Take(fits).Calls, "large", "c")
		if g.Next() {
			t.Error("the group is busy")
		}
	})
	t.Run("a leader has a round of its own and no channel", func(t *testing.T) {
		g := &group.Group[*call]{}
		c := &call{name: "leader"}
		g.Join(c)
		round := g.Lead(c)
		expect(t, round.Calls, "leader")
		group.Answer(round.Calls...)
		if c.Done() != nil || !group.IsAnswered(c) {
			t.Error("the leader has a channel, or is not answered")
		}
	})
	t.Run("calls that are put back come first", func(t *testing.T) {
		g, calls := busy(t, "a", "b", "c")
		first := g.Take(nil)
		group.Claim(first.Calls)
		g.Leave(calls["b"])
		g.Join(&call{name: "d"})
		leader := &call{name: "leader"}
		g.PutBack(append([]*call{leader}, first.Calls...)...)
		if outcome := g.Leave(calls["c"]); outcome != group.Withdrawn {
			t.Errorf("leaving after being put back results in %d, want Withdrawn", outcome)
		}
		second := g.Take(nil)
		expect(t, second.Calls, "leader", "a", "d")
		group.Answer(second.Calls...)
		if !closed(leader.Done()) {
			t.Error("a leader that was put back is not answered")
		}
	})
	t.Run("claiming leaves out those that are answered or have left", func(t *testing.T) {
		g, calls := busy(t, "a", "b", "c", "d")
		round := g.Take(nil)
		g.Leave(calls["b"])
		group.Answer(calls["d"])
		expect(t, group.Claim(round.Calls), "a", "c")
		expect(t, round.Calls, "a", "b", "c", "d")
	})
}

func TestLeave(t *testing.T) {
	type G = group.Group[*call]
	type taking = func() []*call
	tests := map[string]struct {
		do       func(g *G, take taking, a, b *call) // what happens before a leaves
		want     group.Outcome
		canceled bool // the context of the round, or that of its preparation
	}{
		"while it waits":                        {func(*G, taking, *call, *call) {}, group.Withdrawn, false},
		"while it waits, as the last one":       {func(g *G, _ taking, _, b *call) { g.Leave(b) }, group.Withdrawn, true},
		"once it was taken":                     {func(_ *G, take taking, _, _ *call) { take() }, group.Withdrawn, false},
		"once it was taken, as the last one":    {func(g *G, take taking, _, b *call) { take(); g.Leave(b) }, group.Withdrawn, true},
		"once it was claimed":                   {func(_ *G, take taking, _, _ *call) { group.Claim(take()) }, group.Abandoned, false},
		"once it was claimed, as the last one":  {func(g *G, take taking, _, b *call) { group.Claim(take()); g.Leave(b) }, group.Last, true},
		"once it was claimed, b being answered": {func(_ *G, take taking, _, b *call) { group.Claim(take()); group.Answer(b) }, group.Last, true},
		"once it was unclaimed":                 {func(_ *G, take taking, _, _ *call) { group.Unclaim(group.Claim(take())) }, group.Withdrawn, false},
		"once it was answered":                  {func(_ *G, take taking, a, _ *call) { group.Claim(take()); group.Answer(a) }, group.Answered, false},
		"once it has left":                      {func(g *G, _ taking, a, _ *call) { g.Leave(a) }, group.Withdrawn, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g, calls := busy(t, "a", "b")
			preparation, cancel := g.Prepare()
			defer cancel()
			contexts := []context.Context{preparation}
			test.do(g, func() []*call {
				round := g.Take(nil)
				contexts = append(contexts, round.Context(t.Context()))
				return round.Calls
			}, calls["a"], calls["b"])
			ctx := contexts[len(contexts)-1] // of the round, if there was one
			if got := g.Leave(calls["a"]); got != test.want {
				t.Errorf("the outcome is %d, want %d", got, test.want)
			}
			if canceled := ctx.Err() != nil; canceled != test.canceled {
				t.Errorf("canceled is %v, want %v", canceled, test.canceled)
			}
			if closed(calls["a"].Done()) != (test.want == group.Answered) {
				t.Error("Done is closed without an answer, or open with one")
			}
		})
	}
	t.Run("the last caller is answered after it has left", func(t *testing.T) {
		g, calls := busy(t, "a")
		round := g.Take(nil)
		group.Claim(round.Calls)
		if g.Leave(calls["a"]) != group.Last {
			t.Fatal("the only caller is not the last")
		}
		group.Answer(round.Calls...)
		if !closed(calls["a"].Done()) {
			t.Error("the call is not answered")
		}
	})
	t.Run("preparing for callers that have all left and others that joined", func(t *testing.T) {
		g, calls := busy(t, "a")
		ctx, cancel := g.Prepare()
		defer cancel()
		g.Leave(calls["a"])
		g.Join(&call{name: "b"})
		if ctx.Err() == nil {
			t.Error("the context did not end")
		}
		if !g.Next() {
			t.Error("the caller that joined does not wait")
		}
		expect(t, g.Take(nil).Calls, "b")
	})
	t.Run("the context of a round has the values of its parent and not its end", func(t *testing.T) {
		g, calls := busy(t, "a", "b")
		type key struct{}
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		round := g.Take(nil)
		ctx := round.Context(parent)
		cancel()
		if ctx.Err() != nil || ctx.Value(key{}) != "value" {
			t.Errorf("the context has ended or lacks the value: %v", ctx)
		}
		group.Answer(calls["a"], calls["b"])
		if ctx.Err() == nil {
			t.Error("the context did not end with the last answer")
		}
	})
}

// A worker counts how often the work of each call takes effect. It uses a Group as Repo does, with a round for the leader, and with calls
// that are claimed, unclaimed and put back.
type worker struct {
	effect func(ctx context.Context, j *job) // may panic or call runtime.Goexit

	mu      sync.Mutex
	group   group.Group[*job]
	current *group.Round[*job]
	idle    sync.WaitGroup
}

type job struct {
	group.Member
	effects atomic.Int64
	running bool // its effect has begun and has not returned
}

var errUnknown = errors.New("unknown")

// do runs a job and returns an error if the context ends first: errUnknown if it may have had an effect.
func (w *worker) do(ctx context.Context, j *job) error {
	w.mu.Lock()
	lead := w.group.Join(j)
	if lead {
		w.idle.Add(1)
		w.current = w.group.Lead(j)
	}
	w.mu.Unlock()
	if lead {
		w.step(ctx)
		return nil
	}
	select {
	case <-j.Done():
		return nil
	case <-ctx.Done():
	}
	w.mu.Lock()
	outcome := w.group.Leave(j)
	w.mu.Unlock()
	switch outcome {
	case group.Withdrawn:
		return ctx.Err()
	case group.Abandoned:
		return errUnknown
	}
	<-j.Done()
	return nil
}

// step works on the current round, and then has a goroutine work on the next ones.
func (w *worker) step(ctx context.Context) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for i, j := range w.current.Calls {
			if j.running { // it has ended this goroutine
				j.running = false
				group.Answer(j)
				rest := w.current.Calls[i+1:]
				group.Unclaim(rest)
				w.group.PutBack(rest...)
				break
			}
		}
		if !w.group.Next() {
			w.idle.Done()
			return
		}
		w.current = w.group.Take(func(_ *job, first bool) bool { return first || rand.N(8) > 0 })
		ctx := w.current.Context(ctx)
		go func() {
			defer func() { _ = recover() }()
			w.step(ctx)
		}()
	}()
	w.mu.Lock()
	claimed := group.Claim(w.current.Calls)
	if rand.N(4) == 0 { // as after a conflict
		group.Unclaim(claimed)
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
		claimed = group.Claim(claimed)
	}
	w.current.Calls = claimed
	w.mu.Unlock()
	for _, j := range claimed {
		j.running = true
		w.effect(ctx, j)
		j.running = false
		w.mu.Lock()
		group.Answer(j)
		w.mu.Unlock()
	}
}

func TestNoCallIsLostOrWorkedOnTwice(t *testing.T) {
	const callers, jobs = 32, 200
	var contextEnded, unknown, broken atomic.Int64
	w := &worker{effect: func(ctx context.Context, j *job) {
		j.effects.Add(1)
		switch rand.N(16) {
		case 0:
			panic("broken")
		case 1:
			runtime.Goexit()
		case 2:
			select { // a slow one, which ends early if no caller waits for the round
			case <-ctx.Done():
				contextEnded.Add(1)
			case <-time.After(time.Duration(rand.N(200)) * time.Microsecond):
			}
		}
	}}
	one := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var delay time.Duration
		if rand.N(2) == 0 {
			delay = time.Duration(rand.N(300)) * time.Microsecond
			time.AfterFunc(delay, cancel)
		}
		j := &job{}
		err, returned := error(nil), false
		var done sync.WaitGroup
		done.Go(func() { // as the effect may end the goroutine of the caller
			defer func() { _ = recover() }()
			err = w.do(ctx, j)
			returned = true
		})
		done.Wait()
		switch n := j.effects.Load(); {
		case !returned:
			broken.Add(1)
			if n != 1 {
				t.Errorf("the call of a broken leader took effect %d times", n)
			}
		case err == nil && n != 1:
			t.Errorf("an answered call took effect %d times", n)
		case errors.Is(err, errUnknown):
			unknown.Add(1)
		case err != nil && n != 0:
			t.Errorf("a call that was withdrawn took effect %d times", n)
		}
	}
	var crowd sync.WaitGroup
	for range callers {
		crowd.Go(func() {
			for range jobs {
				one()
			}
		})
	}
	crowd.Wait()
	w.idle.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.group.Busy() || w.group.Joined() != 0 {
		t.Error("the group is busy after its last call")
	}
	t.Logf("%d outcomes unknown, %d broken leaders, %d rounds whose callers all left", unknown.Load(), broken.Load(), contextEnded.Load())
}
