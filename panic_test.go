package es_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/thalo-go/es"
)

var errTilt = errors.New("tilt")

func blowUp(total) ([]added, error) { panic(errTilt) }

func TestPanicReachesOnlyItsCaller(t *testing.T) {
	onThirteen := func(e added) {
		if e.N == 13 {
			panic(errTilt)
		}
	}
	for _, test := range []struct {
		name    string
		command do
		rules   tally
		codec   *es.Codec[added]
	}{
		{"in Decide", blowUp, tally{}, tallyCodec},
		{"in Evolve", add(1, 13), tally{onThirteen}, tallyCodec},
		{"in the codec", add(13), tally{}, calling(onThirteen)},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSpy()
				repo := es.NewRepo(store, "tally", test.rules, test.codec)
				callers, seen := crowd(store, repo,
					func() *caller { return call(t.Context(), repo, add(2)) },
					func() *caller { return call(t.Context(), repo, test.command, es.CommandID("tilting")) },
					func() *caller { return call(t.Context(), repo, add(4)) },
				)
				p, _ := callers[1].panicked.(*es.PanicError)
				if p == nil {
					t.Fatalf("the caller got %v, %v, %v; want a panic with a *es.PanicError", callers[1].result, callers[1].err, callers[1].panicked)
				}
				if p.Value != errTilt || !errors.Is(p, errTilt) {
					t.Errorf("it panicked with %v, not with what the rules gave", p.Value)
				}
				if !strings.Contains(string(p.Stack), "panic_test.go") {
					t.Errorf("the stack does not show where:\n%s", p.Stack)
				}
				if callers[0].err != nil || callers[2].err != nil || callers[2].result.State.N != 7 || callers[2].result.Version != 3 {
					t.Errorf("the others got %v, %v and %v, %v; want 3 and 7", callers[0].result, callers[0].err, callers[2].result, callers[2].err)
				}
				if len(seen.Appends) != 1 || seen.Appends[0] != 2 {
					t.Errorf("the appends were %v; want one of two", seen.Appends)
				}
				if result, err := repo.Execute(t.Context(), "1", add(1)); err != nil || result.State.N != 8 {
					t.Errorf("afterwards: %v, %v; want 8", result, err)
				}
			})
		})
	}
}

// calling returns a codec that calls a function before it encodes.
func calling(f func(added)) *es.Codec[added] {
	return es.CodecFunc(func(e added) (es.Record, error) { f(e); return tallyCodec.Encode(e) }, tallyCodec.Decode)
}

func TestPanicOnStoredEventsReachesAllWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		if _, err := newTally(store).Execute(t.Context(), "1", add(1, 13)); err != nil {
			t.Fatal(err)
		}
		repo := es.NewRepo(store, "tally", tally{func(e added) {
			if e.N == 13 {
				panic(errTilt)
			}
		}}, tallyCodec)
		hold := make(chan struct{})
		store.read = func(context.Context) error { <-hold; return nil }
		first := call(t.Context(), repo, add(1))
		synctest.Wait()
		second := call(t.Context(), repo, nothing)
		third := call(t.Context(), repo, add(1))
		synctest.Wait()
		close(hold)
		for i, k := range []*caller{first, second, third} {
			<-k.done
			if p, _ := k.panicked.(*es.PanicError); p == nil || p.Value != errTilt {
				t.Errorf("caller %d got %v, %v, %v; want a *es.PanicError", i, k.result, k.err, k.panicked)
			}
		}
		if _, err := repo.Execute(t.Context(), "2", add(1)); err != nil {
			t.Errorf("another aggregate: %v", err)
		}
	})
}

func TestPanicOnADuplicatesEventsReachesOnlyItsCaller(t *testing.T) {
	for name, again := range map[string]do{"appended again": add(14), "refused now": refuse} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSpy()
				tilting := false
				repo := es.NewRepo(store, "tally", tally{func(e added) {
					if e.N == 13 && tilting {
						panic(errTilt)
					}
				}}, tallyCodec)
				if _, err := repo.Execute(t.Context(), "1", add(13), es.CommandID("tilting")); err != nil {
					t.Fatal(err)
				}
				tilting = true // from now on the state is in the cache alone
				callers, _ := crowd(store, repo,
					func() *caller { return call(t.Context(), repo, add(2)) },
					func() *caller { return call(t.Context(), repo, again, es.CommandID("tilting")) },
					func() *caller { return call(t.Context(), repo, add(4)) },
				)
				if p, _ := callers[1].panicked.(*es.PanicError); p == nil || p.Value != errTilt {
					t.Errorf("the caller got %v, %v, %v; want a *es.PanicError", callers[1].result, callers[1].err, callers[1].panicked)
				}
				for _, k := range []*caller{callers[0], callers[2]} {
					if k.err != nil || k.panicked != nil {
						t.Errorf("another got %v, %v, %v", k.result, k.err, k.panicked)
					}
				}
				if callers[2].result.State.N != 20 {
					t.Errorf("the sum is %d, not 20", callers[2].result.State.N)
				}
			})
		})
	}
}

func TestGoexitEndsOnlyItsCaller(t *testing.T) {
	leave := func(total) ([]added, error) { runtime.Goexit(); return nil, nil } // as t.FailNow does
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		callers, _ := crowd(store, repo,
			func() *caller { return call(t.Context(), repo, add(2)) },
			func() *caller { return call(t.Context(), repo, leave) },
			func() *caller { return call(t.Context(), repo, add(4)) },
			func() *caller { return call(t.Context(), repo, leave) },
			func() *caller { return call(t.Context(), repo, refuse) },
		)
		for i, exited := range []bool{false, true, false, true, false} {
			if k := callers[i]; !k.answered() || k.exited != exited {
				t.Errorf("caller %d: answered %t, ended by Goexit %t; want it ended %t", i, k.answered(), k.exited, exited)
			}
		}
		if k := callers[2]; k.err != nil || k.result.State.N != 7 {
			t.Errorf("the one behind got %v, %v; want 7", k.result, k.err)
		}
		if k := callers[4]; k.err != errRefused {
			t.Errorf("the refused one got %v", k.err)
		}
		if err := repo.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestGoexitOnStoredEventsEndsAllWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		if _, err := newTally(store).Execute(t.Context(), "1", add(13)); err != nil {
			t.Fatal(err)
		}
		repo := es.NewRepo(store, "tally", tally{func(added) { runtime.Goexit() }}, tallyCodec)
		k := call(t.Context(), repo, add(1))
		<-k.done
		if !k.exited {
			t.Errorf("the caller got %v, %v", k.result, k.err)
		}
		if err := repo.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
