package es_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// obey is an append that is queued and ends with its context.
func obey(ctx context.Context, _ []es.Append, _ func() (es.Position, error)) (es.Position, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestDoneContext(t *testing.T) {
	store := newSpy()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newTally(store).Execute(ctx, "1", add(1))
	if !errors.Is(err, context.Canceled) || errors.Is(err, es.ErrUnknownOutcome) {
		t.Errorf("%v; want context.Canceled", err)
	}
	if diff := cmp.Diff(notes{}, store.take()); diff != "" {
		t.Errorf("the store was asked (-want +got):\n%s", diff)
	}
}

// leaver starts a call whose context the test cancels.
func leaver(t *testing.T, repo *tallies, c do) (k *caller, leave func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return call(ctx, repo, c), cancel
}

func (k *caller) leftWith(t *testing.T, unknown bool) {
	t.Helper()
	if !k.answered() {
		t.Fatal("its context has ended and Execute has not")
	}
	if !errors.Is(k.err, context.Canceled) || errors.Is(k.err, es.ErrUnknownOutcome) != unknown {
		t.Errorf("%v; want context.Canceled, and ErrUnknownOutcome %t", k.err, unknown)
	}
}

func (k *caller) has(t *testing.T, sum int) {
	t.Helper()
	if !k.answered() {
		t.Fatal("it still waits")
	}
	if k.err != nil || k.panicked != nil || k.result.State.N != sum {
		t.Errorf("%v, %v, %v; want %d", k.result, k.err, k.panicked, sum)
	}
}

func sum(t *testing.T, store es.Store) int {
	t.Helper()
	at, err := newTally(store).Load(t.Context(), "1")
	state := at.State
	if err != nil {
		t.Fatal(err)
	}
	return state.N
}

// ending cancels the context of a call at some moment, and checks that call and the others.
type ending func(t *testing.T, store *spy, repo *tallies)

// ends runs endings, each on its own Repo, and then a command, which needs an idle lane.
func ends(t *testing.T, endings map[string]ending) {
	for name, test := range endings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSpy()
				repo := newTally(store)
				test(t, store, repo)
				synctest.Wait()
				store.append, store.read = nil, nil
				if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
					t.Errorf("the lane does not go on: %v", err)
				}
				if err := repo.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestContextEndsWhileCallIsQueued(t *testing.T) {
	ends(t, map[string]ending{
		"for its round": func(t *testing.T, store *spy, repo *tallies) {
			hold := make(chan struct{})
			store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
				<-hold
				return write()
			}
			busy := call(t.Context(), repo, add(1))
			synctest.Wait()
			gone, leave := leaver(t, repo, add(2))
			stays := call(t.Context(), repo, add(4))
			synctest.Wait()
			leave()
			synctest.Wait()
			gone.leftWith(t, false)
			close(hold)
			synctest.Wait()
			busy.has(t, 1)
			stays.has(t, 5)
		},

		"for the state, alone": func(t *testing.T, store *spy, repo *tallies) {
			store.read = func(ctx context.Context) error { <-ctx.Done(); store.read = nil; return ctx.Err() }
			gone, leave := leaver(t, repo, add(2))
			synctest.Wait()
			stays := call(t.Context(), repo, add(4)) // in the next round
			synctest.Wait()
			leave()
			synctest.Wait()
			gone.leftWith(t, false)
			stays.has(t, 4)
		},

		"for the state, with others": func(t *testing.T, store *spy, repo *tallies) {
			hold := make(chan struct{})
			store.append = obey
			_, first := leaver(t, repo, add(1))
			synctest.Wait()
			gone, leave := leaver(t, repo, add(2))
			stays := call(t.Context(), repo, add(4))
			synctest.Wait()
			store.append = nil
			store.read = func(ctx context.Context) error {
				select {
				case <-hold:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			first() // its append fails, the state is dropped, and the next round reads
			synctest.Wait()
			leave()
			synctest.Wait()
			gone.leftWith(t, false)
			close(hold)
			synctest.Wait()
			stays.has(t, 4)
		},

		"for the state, as do all others whose contexts end": func(t *testing.T, store *spy, repo *tallies) {
			store.append = obey
			_, first := leaver(t, repo, add(1))
			synctest.Wait()
			a, leaveA := leaver(t, repo, add(2))
			b, leaveB := leaver(t, repo, add(4))
			synctest.Wait()
			ended := make(chan struct{})
			store.read = func(ctx context.Context) error { <-ctx.Done(); close(ended); return ctx.Err() }
			first()
			synctest.Wait()
			leaveA()
			leaveB()
			synctest.Wait()
			a.leftWith(t, false)
			b.leftWith(t, false)
			<-ended
			store.read, store.append = nil, nil
		},
	})
}

func TestContextEndsDuringAppend(t *testing.T) {
	ends(t, map[string]ending{
		"in the queue": func(t *testing.T, store *spy, repo *tallies) {
			store.append = obey
			gone, leave := leaver(t, repo, add(2))
			synctest.Wait()
			leave()
			synctest.Wait()
			gone.leftWith(t, false)
			if n := sum(t, store); n != 0 {
				t.Errorf("%d was written", n)
			}
		},

		"alone": func(t *testing.T, store *spy, repo *tallies) {
			hold := make(chan struct{})
			store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
				<-hold
				return store.Log.Append(context.Background(), es.Append{Stream: tally1, Events: []es.Record{{Type: "added", Data: []byte(`{"N":2}`)}}})
			}
			late, leave := leaver(t, repo, add(2))
			synctest.Wait()
			leave()
			synctest.Wait()
			if late.answered() {
				t.Fatalf("it got %v, %v: the store knows better", late.result, late.err)
			}
			close(hold)
			synctest.Wait()
			late.has(t, 2)
		},

		"with others'": func(t *testing.T, store *spy, repo *tallies) {
			hold := make(chan struct{})
			store.append = func(ctx context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
				<-hold
				if err := ctx.Err(); err != nil {
					t.Errorf("the append's context has ended with one caller's: %v", err)
				}
				return write()
			}
			var leave func()
			callers, _ := crowd(store, repo,
				func() (k *caller) { k, leave = leaver(t, repo, add(2)); return k },
				func() *caller { return call(t.Context(), repo, add(4)) },
			)
			leave()
			synctest.Wait()
			callers[0].leftWith(t, true)
			close(hold)
			synctest.Wait()
			callers[1].has(t, 7)
			if n := sum(t, store); n != 7 {
				t.Errorf("the sum is %d: the call that was abandoned had sent its event", n)
			}
		},

		"with others' whose contexts end": func(t *testing.T, store *spy, repo *tallies) {
			store.append = obey
			var first, second func()
			callers, _ := crowd(store, repo,
				func() (k *caller) { k, first = leaver(t, repo, add(2)); return k },
				func() (k *caller) { k, second = leaver(t, repo, add(4)); return k },
			)
			first()
			synctest.Wait()
			callers[0].leftWith(t, true)
			second() // the last one gets the answer of the store
			synctest.Wait()
			callers[1].leftWith(t, false)
		},
	})
}

func TestContextEndsDuringPause(t *testing.T) {
	ends(t, map[string]ending{
		"after many": func(t *testing.T, store *spy, repo *tallies) {
			tries := 0
			store.append = func(context.Context, []es.Append, func() (es.Position, error)) (es.Position, error) {
				tries++
				return 0, &es.ConflictError{Stream: tally1}
			}
			repo.Retries = 1 << 30
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := repo.Execute(ctx, "1", add(1))
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, es.ErrUnknownOutcome) {
				t.Errorf("%v; want context.DeadlineExceeded", err)
			}
			if tries < 60*1000/128 || tries > 60*1000/32 {
				t.Errorf("%d tries in a minute: the pauses do not grow to something like 64 ms", tries)
			}
		},
	})
}
