package commit_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

func TestLeavingBeforeTheCommit(t *testing.T) {
	t.Run("before it was taken, nothing is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{write: func(ctx context.Context) { _ = g.wait(ctx) }}
			q := b.queue(commit.Options{})
			first := send(t.Context(), q, request("a", 1, 0))
			ctx, cancel := context.WithCancel(t.Context())
			second, third := send(ctx, q, request("b", 1, 0)), send(t.Context(), q, request("c", 1, 0))
			cancel()
			r := <-second
			r.is(t, context.Canceled)
			r.known(t)
			close(g)
			(<-first).ok(t, 1)
			(<-third).ok(t, 2)
			b.expect(t, []string{"a"}, []string{"c"})
		})
	})
	t.Run("when all callers have left, waiting for the lock ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin, write := make(gate), make(gate)
			b := &backend{begin: begin.wait, write: func(ctx context.Context) { _ = write.wait(ctx) }}
			q := b.queue(commit.Options{})
			first := send(t.Context(), q, request("a", 1, 0))
			begin <- struct{}{}
			synctest.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			second, third := send(ctx, q, request("b", 1, 0)), send(ctx, q, request("c", 1, 0))
			write <- struct{}{}
			(<-first).ok(t, 1)
			synctest.Wait() // the second transaction waits for its lock
			cancel()
			(<-second).is(t, context.Canceled)
			(<-third).is(t, context.Canceled)
			q.Close()
			b.expect(t, []string{"a"})
		})
	})
	t.Run("caller that joins after all others have left is served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin, write, slow := make(gate), make(gate), make(gate)
			b := &backend{begin: func(ctx context.Context) error {
				if err := begin.wait(ctx); err != nil {
					<-slow // giving up takes long
					return err
				}
				return nil
			}, write: func(ctx context.Context) { _ = write.wait(ctx) }}
			q := b.queue(commit.Options{})
			first := send(t.Context(), q, request("a", 1, 0))
			begin <- struct{}{}
			synctest.Wait()
			gone, cancel := context.WithCancel(t.Context())
			second, third := send(gone, q, request("b", 1, 0)), send(gone, q, request("c", 1, 0))
			write <- struct{}{}
			(<-first).ok(t, 1)
			synctest.Wait() // the second transaction waits for its lock
			cancel()
			(<-second).is(t, context.Canceled)
			(<-third).is(t, context.Canceled)
			fourth := send(t.Context(), q, request("d", 1, 0))
			slow <- struct{}{}
			begin <- struct{}{}
			write <- struct{}{}
			(<-fourth).ok(t, 2)
			b.expect(t, []string{"a"}, []string{"d"})
		})
	})
}

func TestLeavingDuringTheCommit(t *testing.T) {
	t.Run("while it is written with others, the outcome is unknown and the others are not affected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin, write := make(gate), make(gate)
			var ended bool
			b := &backend{begin: begin.wait, write: func(ctx context.Context) { ended = write.wait(ctx) != nil }}
			q := b.queue(commit.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			first, second := send(ctx, q, request("a", 1, 0)), send(t.Context(), q, request("b", 1, 0))
			begin <- struct{}{}
			synctest.Wait()
			cancel()
			(<-first).is(t, es.ErrUnknownOutcome, context.Canceled)
			write <- struct{}{}
			(<-second).ok(t, 2)
			if ended {
				t.Error("the context ended although a caller waits for the transaction")
			}
		})
	})
	t.Run("as the last caller of a write, it cancels the write and gets the result", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := make(gate)
			b := &backend{begin: begin.wait, write: func(ctx context.Context) { <-ctx.Done() }}
			q := b.queue(commit.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			other, leave := context.WithCancel(t.Context())
			first, second := send(ctx, q, request("a", 1, 0)), send(other, q, request("b", 1, 0))
			begin <- struct{}{}
			synctest.Wait()
			cancel()
			(<-first).is(t, es.ErrUnknownOutcome)
			leave()
			(<-second).ok(t, 2)
		})
	})
	t.Run("while the caller writes itself, it gets the result", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			b := &backend{write: func(ctx context.Context) { <-ctx.Done() }}
			answer := send(ctx, b.queue(commit.Options{}), request("a", 1, 0))
			cancel()
			(<-answer).ok(t, 1)
		})
	})
	t.Run("once the verdict is known, the caller gets it", func(t *testing.T) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the caller runs only after the writer is done
		synctest.Test(t, func(t *testing.T) {
			begin := make(gate)
			ctx, cancel := context.WithCancel(t.Context())
			b := &backend{begin: begin.wait, write: func(context.Context) { cancel() }}
			q := b.queue(commit.Options{})
			first, second := send(ctx, q, request("a", 1, 0)), send(ctx, q, request("b", 1, 0))
			begin <- struct{}{}
			(<-first).ok(t, 1)
			(<-second).ok(t, 2)
		})
	})
}

func TestMemoryOfCallersThatLeft(t *testing.T) {
	t.Run("memory of a caller that has left is not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin, write := make(gate), make(gate)
			var seen []string
			q := commit.New(func(ctx context.Context) (commit.Tx, error) {
				return inspect(func(requests []*commit.Request) {
					<-write
					for _, r := range requests {
						e := r.Appends[0].Events[0]
						seen = append(seen, fmt.Sprintf("%s %s %s", r.Appends[0].Stream, e.Data, e.Meta["k"]))
					}
				}), begin.wait(ctx)
			}, commit.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			mine := func(name string) []es.Append {
				return []es.Append{{Stream: es.Stream{Kind: "k", ID: name}, Events: []es.Record{{Type: "t", Data: []byte(name), Meta: map[string]string{"k": name}}}}}
			}
			a, b := mine("a"), mine("b")
			first, second, third := send(ctx, q, a), send(ctx, q, b), send(t.Context(), q, mine("c"))
			begin <- struct{}{}
			synctest.Wait()
			cancel()
			for _, answer := range []<-chan result{first, second} {
				(<-answer).is(t, es.ErrUnknownOutcome)
			}
			for _, again := range [][]es.Append{a, b} { // the caller reuses them
				again[0].Events[0].Data[0], again[0].Events[0].Meta["k"] = 'X', "X"
				again[0].Events[0], again[0] = es.Record{Data: []byte("Y")}, es.Append{Stream: es.Stream{Kind: "Y", ID: "Y"}, Events: again[0].Events}
			}
			write <- struct{}{}
			(<-third).ok(t, 0)
			if diff := cmp.Diff([]string{"k/a a a", "k/b b b", "k/c c c"}, seen); diff != "" {
				t.Errorf("written appends differ (-sent +written):\n%s", diff)
			}
		})
	})
}

// A transaction that others may share goes on after its callers have left, and none of them waits for that.
func TestCallersLeaveADetachedTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := make(gate)
		written := 0
		q := commit.New(func(context.Context) (commit.Tx, error) {
			return detached(func(requests []*commit.Request) {
				<-g
				written += len(requests)
			}), nil
		}, commit.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		first := send(ctx, q, request("a", 1, 0))
		synctest.Wait()
		cancel()
		(<-first).is(t, es.ErrUnknownOutcome)
		closed := make(chan struct{})
		go func() { q.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while the transaction goes on")
		default:
		}
		g <- struct{}{}
		<-closed
		if written != 1 {
			t.Errorf("%d requests were written, want 1", written)
		}
	})
}

// detached is a transaction that goes on without its callers.
type detached func(requests []*commit.Request)

func (d detached) Write(_ context.Context, requests []*commit.Request) { d(requests) }
func (d detached) Detached() bool                                      { return true }

// inspect is a transaction that shows its requests to a function.
type inspect func(requests []*commit.Request)

func (l inspect) Write(_ context.Context, requests []*commit.Request) { l(requests) }

func TestClose(t *testing.T) {
	t.Run("waits for the queue and refuses later appends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := make(gate)
			b := &backend{write: func(ctx context.Context) { _ = g.wait(ctx) }}
			q := b.queue(commit.Options{Waiting: 2})
			first, second, outside := send(t.Context(), q, request("a", 1, 0)), send(t.Context(), q, request("b", 1, 0)), send(t.Context(), q, request("c", 1, 0))
			closed := make(chan struct{})
			go func() { q.Close(); close(closed) }()
			synctest.Wait()
			select {
			case <-closed:
				t.Error("closed while appends are in flight")
			default:
			}
			close(g)
			(<-first).ok(t, 1)
			(<-second).ok(t, 2)
			(<-outside).is(t, es.ErrClosed)
			<-closed
			q.Close()
			(<-send(t.Context(), q, request("d", 1, 0))).is(t, es.ErrClosed)
		})
	})
	for name, end := range map[string]func(){"panicked": func() { panic("broken") }, "called runtime.Goexit": runtime.Goexit} {
		for _, where := range []string{"begin", "Write"} {
			t.Run("after the first caller's "+where+" "+name+", the others are served", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := make(gate)
					calls := map[string]int{}
					first := func(ctx context.Context, what string) {
						if what == where {
							_ = g.wait(ctx)
							if calls[what]++; calls[what] == 1 {
								end()
							}
						}
					}
					b := &backend{
						begin: func(ctx context.Context) error { first(ctx, "begin"); return nil },
						write: func(ctx context.Context) { first(ctx, "Write") },
					}
					q := b.queue(commit.Options{})
					returned, ended := false, make(chan any)
					go func() {
						defer func() { ended <- recover() }()
						_, _ = q.Append(t.Context(), request("a", 1, 0))
						returned = true
					}()
					synctest.Wait()
					second := send(t.Context(), q, request("b", 1, 0))
					close(g)
					if v := <-ended; returned || (v == nil) != (name == "called runtime.Goexit") {
						t.Errorf("Append returned (%v) or panicked with %v", returned, v)
					}
					(<-second).ok(t, 1)
					q.Close()
				})
			})
		}
	}
}
