package commit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is a store without storage. It records the names of the requests and may block in begin and write.
type backend struct {
	begin func(ctx context.Context) error // if set, called to begin a transaction
	write func(ctx context.Context)       // if set, called before a commit

	mu      sync.Mutex
	batches [][]string
	written map[string]int
}

func (b *backend) queue(o commit.Options) *commit.Queue {
	b.written = make(map[string]int)
	return commit.New(func(ctx context.Context) (commit.Tx, error) {
		if b.begin != nil {
			if err := b.begin(ctx); err != nil {
				return nil, err
			}
		}
		return b, nil
	}, o)
}

// Write implements commit.Tx. It refuses requests with the name "bad".
func (b *backend) Write(ctx context.Context, requests []*commit.Request) {
	if b.write != nil {
		b.write(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := []string{}
	for _, r := range requests {
		name := r.Appends[0].Stream.ID
		batch = append(batch, name)
		if name == "bad" {
			r.Err = &es.ConflictError{Stream: r.Appends[0].Stream}
			continue
		}
		b.written[name]++
		r.Position = es.Position(len(b.written))
	}
	b.batches = append(b.batches, batch)
}

func (b *backend) expect(t *testing.T, batches ...[]string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff(batches, b.batches); diff != "" {
		t.Errorf("transactions differ (-want +got):\n%s", diff)
	}
}

// request returns an append of some events of equal size.
func request(name string, events, bytes int) []es.Append {
	a := es.Append{Stream: es.Stream{Kind: "k", ID: name}}
	for range events {
		a.Events = append(a.Events, es.Record{Type: "t", Data: make([]byte, bytes)})
	}
	return []es.Append{a}
}

// result is what a call of Append returned.
type result struct {
	position es.Position
	err      error
}

// send calls Append in a new goroutine and returns once that is blocked or done.
func send(ctx context.Context, q *commit.Queue, appends []es.Append) <-chan result {
	answer := make(chan result, 1)
	go func() {
		position, err := q.Append(ctx, appends)
		answer <- result{position, err}
	}()
	synctest.Wait()
	return answer
}

func (r result) ok(t *testing.T, position es.Position) {
	t.Helper()
	if r.err != nil || r.position != position {
		t.Errorf("the verdict is %d, %v; expected position %d", r.position, r.err, position)
	}
}

func (r result) is(t *testing.T, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(r.err, target) {
			t.Errorf("the verdict is %d, %v; expected the error %v", r.position, r.err, target)
		}
	}
}

// known fails the test if the error wraps ErrUnknownOutcome.
func (r result) known(t *testing.T) {
	t.Helper()
	if errors.Is(r.err, es.ErrUnknownOutcome) {
		t.Errorf("the verdict is %v; expected a known outcome", r.err)
	}
}

// gate blocks goroutines until the test sends to it or closes it.
type gate chan struct{}

func (g gate) wait(ctx context.Context) error {
	select {
	case <-g:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestGathering(t *testing.T) {
	t.Run("lone caller writes in its own goroutine", func(t *testing.T) {
		var stack string
		b := &backend{write: func(context.Context) { stack = stackOfThis() }}
		q := b.queue(commit.Options{})
		position, err := q.Append(t.Context(), request("a", 1, 0))
		result{position, err}.ok(t, 1)
		if !strings.Contains(stack, "commit_test.TestGathering") {
			t.Errorf("not written by the caller's goroutine:\n%s", stack)
		}
	})
	t.Run("appends during a write share the next transaction in order", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{write: func(ctx context.Context) { _ = g.wait(ctx) }}
			q := b.queue(commit.Options{})
			first := send(t.Context(), q, request("a", 1, 0))
			var rest []<-chan result
			for _, name := range []string{"b", "c", "d"} {
				rest = append(rest, send(t.Context(), q, request(name, 1, 0)))
			}
			g <- struct{}{}
			(<-first).ok(t, 1)
			g <- struct{}{}
			for i, answer := range rest {
				(<-answer).ok(t, es.Position(i+2))
			}
			b.expect(t, []string{"a"}, []string{"b", "c", "d"})
		})
	})
	t.Run("appends while the first waits for the lock join it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{begin: g.wait}
			q := b.queue(commit.Options{})
			first, second := send(t.Context(), q, request("a", 1, 0)), send(t.Context(), q, request("b", 1, 0))
			g <- struct{}{}
			(<-first).ok(t, 1)
			(<-second).ok(t, 2)
			b.expect(t, []string{"a", "b"})
		})
	})
	t.Run("each append has its own verdict", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{begin: g.wait}
			q := b.queue(commit.Options{})
			answers := []<-chan result{send(t.Context(), q, request("a", 1, 0)), send(t.Context(), q, request("bad", 1, 0)), send(t.Context(), q, request("b", 1, 0))}
			g <- struct{}{}
			(<-answers[0]).ok(t, 1)
			var conflict *es.ConflictError
			if r := <-answers[1]; !errors.As(r.err, &conflict) {
				t.Errorf("the verdict is %v; expected a conflict", r.err)
			}
			(<-answers[2]).ok(t, 2)
		})
	})
}

func stackOfThis() string {
	text := make([]byte, 16<<10)
	return string(text[:runtime.Stack(text, false)])
}

func TestBounds(t *testing.T) {
	tests := map[string]struct {
		options  commit.Options
		requests map[string][2]int // events and bytes of each
		batches  [][]string
	}{
		"by events": {
			commit.Options{Events: 3},
			map[string][2]int{"b": {2, 0}, "c": {1, 0}, "d": {2, 0}, "e": {2, 0}},
			[][]string{{"b", "c"}, {"d"}, {"e"}},
		},
		"by bytes": {
			commit.Options{Bytes: 1000},
			map[string][2]int{"b": {1, 400}, "c": {1, 500}, "d": {1, 300}},
			[][]string{{"b", "c"}, {"d"}},
		},
		"and a larger request is written alone": {
			commit.Options{Events: 3, Bytes: 1000},
			map[string][2]int{"b": {1, 1}, "c": {7, 9999}, "d": {1, 1}},
			[][]string{{"b"}, {"c"}, {"d"}},
		},
		"and a larger first request is written alone": {
			commit.Options{Events: 3, Bytes: 1000},
			map[string][2]int{"b": {7, 9999}, "c": {1, 1}, "d": {1, 1}},
			[][]string{{"b"}, {"c", "d"}},
		},
	}
	for name, test := range tests {
		t.Run("a transaction is bounded "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := make(gate)
				b := &backend{begin: g.wait}
				q := b.queue(test.options)
				answers := []<-chan result{send(t.Context(), q, request("a", 1, 0))}
				g <- struct{}{} // the first, alone
				(<-answers[0]).ok(t, 1)
				for _, name := range []string{"b", "c", "d", "e"} {
					if size, found := test.requests[name]; found {
						answers = append(answers, send(t.Context(), q, request(name, size[0], size[1])))
					}
				}
				close(g)
				for i, answer := range answers[1:] {
					(<-answer).ok(t, es.Position(i+2))
				}
				b.expect(t, append([][]string{{"a"}}, test.batches...)...)
			})
		})
	}
	t.Run("metadata and names count as bytes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{begin: g.wait}
			q := b.queue(commit.Options{Bytes: 1000})
			large := request("b", 1, 0)
			large[0].Events[0].Meta = map[string]string{"key": strings.Repeat("m", 600)}
			long := request("c"+strings.Repeat("c", 400), 1, 0)
			answers := []<-chan result{send(t.Context(), q, request("a", 1, 0)), send(t.Context(), q, large), send(t.Context(), q, long)}
			close(g)
			for i, answer := range answers {
				(<-answer).ok(t, es.Position(i+1))
			}
			b.expect(t, []string{"a", "b"}, []string{long[0].Stream.ID})
		})
	})
	t.Run("callers beyond the capacity wait until their contexts end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{begin: g.wait}
			q := b.queue(commit.Options{Waiting: 2})
			a, second := send(t.Context(), q, request("a", 1, 0)), send(t.Context(), q, request("b", 1, 0))
			ctx, cancel := context.WithCancel(t.Context())
			outside, patient := send(ctx, q, request("c", 1, 0)), send(t.Context(), q, request("d", 1, 0))
			cancel()
			(<-outside).is(t, context.Canceled)
			close(g)
			(<-a).ok(t, 1)
			(<-second).ok(t, 2)
			(<-patient).ok(t, 3)
			b.expect(t, []string{"a", "b"}, []string{"d"})
		})
	})
}

func TestBeginFails(t *testing.T) {
	broken := errors.New("broken")
	t.Run("its error is the verdict of all waiting requests, and the next begins again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			verdicts := make(chan error)
			b := &backend{begin: func(context.Context) error { return <-verdicts }}
			q := b.queue(commit.Options{})
			first, second := send(t.Context(), q, request("a", 1, 0)), send(t.Context(), q, request("b", 1, 0))
			verdicts <- broken
			(<-first).is(t, broken)
			(<-second).is(t, broken)
			lone := send(t.Context(), q, request("c", 1, 0))
			verdicts <- broken
			(<-lone).is(t, broken)
			good := send(t.Context(), q, request("d", 1, 0))
			verdicts <- nil
			(<-good).ok(t, 1)
			b.expect(t, []string{"d"})
		})
	})
	t.Run("because the first caller's context ended, the others are served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for range 100 { // a defect here is a race
				g := make(gate)
				b := &backend{begin: g.wait}
				q := b.queue(commit.Options{})
				ctx, cancel := context.WithCancel(t.Context())
				first, second := send(ctx, q, request("a", 1, 0)), send(t.Context(), q, request("b", 1, 0))
				cancel()
				close(g)
				r := <-first
				r.is(t, context.Canceled)
				r.known(t)
				(<-second).ok(t, 1)
				b.expect(t, []string{"b"})
			}
		})
	})
	t.Run("because the only caller's context ended, nothing is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := &backend{begin: make(gate).wait}
			q := b.queue(commit.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			answer := send(ctx, q, request("a", 1, 0))
			cancel()
			r := <-answer
			r.is(t, context.Canceled)
			r.known(t)
			q.Close()
			b.expect(t)
		})
	})
	t.Run("a transaction begun for callers that have all left ends empty", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{begin: func(context.Context) error { <-g; return nil }}
			q := b.queue(commit.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			first, second := send(ctx, q, request("a", 1, 0)), send(ctx, q, request("b", 1, 0))
			cancel()
			synctest.Wait()
			g <- struct{}{}
			(<-first).is(t, context.Canceled)
			(<-second).is(t, context.Canceled)
			q.Close()
			b.expect(t, []string{})
		})
	})
}

func TestNoAppendIsLostOrWrittenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nap := func(most time.Duration) { time.Sleep(rand.N(most)) } // the bubble's clock
		b := &backend{
			begin: func(ctx context.Context) error {
				nap(3 * time.Millisecond)
				return ctx.Err()
			},
			write: func(context.Context) { nap(3 * time.Millisecond) },
		}
		q := b.queue(commit.Options{Events: 7, Waiting: 20})
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for i := range 100 {
					ctx, cancel := context.WithTimeout(t.Context(), rand.N(40*time.Millisecond))
					name := fmt.Sprint(w, "-", i)
					position, err := q.Append(ctx, request(name, 1+rand.N(4), 10))
					b.mu.Lock()
					n := b.written[name]
					b.mu.Unlock()
					switch {
					case err == nil && (n != 1 || position == 0):
						t.Errorf("%s is acknowledged at %d and written %d times", name, position, n)
					case err != nil && !errors.Is(err, context.DeadlineExceeded):
						t.Errorf("%s: %v", name, err)
					case err != nil && !errors.Is(err, es.ErrUnknownOutcome) && n != 0:
						t.Errorf("%s is written although its caller received %v", name, err)
					}
					cancel()
				}
			})
		}
		wg.Wait()
		q.Close()
		if n := len(slices.Concat(b.batches...)); n < 100 || n != len(b.written) {
			t.Errorf("%d appends written, %d of them different; expected hundreds, each once", n, len(b.written))
		}
	})
}
