package es_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

var errRefused = errors.New("refused")

func refuse(total) ([]added, error)  { return nil, errRefused }
func nothing(total) ([]added, error) { return nil, nil }

var tally1 = es.Stream{Kind: "tally", ID: "1"}

func TestConcurrentCommandsShareAnAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		execute(t, newBank(store), "42", account.Open{Owner: "Ada"}) // so that positions are not versions

		starts := make([]func() *caller, 64)
		for i := range starts {
			c := add(10 * i)
			switch i % 8 {
			case 1:
				c = add(i, i)
			case 2:
				c = refuse
			case 3:
				c = nothing
			}
			starts[i] = func() *caller { return call(t.Context(), repo, c) }
		}
		callers, seen := crowd(store, repo, starts...)
		if diff := cmp.Diff(notes{Appends: []int{48}}, seen); diff != "" {
			t.Errorf("want one append of 48 commands (-want +got):\n%s", diff)
		}

		records := stored(t, store, tally1)
		if len(records) != 1+40+2*8 {
			t.Fatalf("%d records are stored, not %d", len(records), 1+40+2*8)
		}
		sums := []int{0} // by version
		for _, r := range records {
			e, err := tallyCodec.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, sums[len(sums)-1]+e.N)
		}
		ends := make(map[es.Version]int) // whose events a version ends
		for i, k := range callers {
			want := []added{{10 * i}}
			switch i % 8 {
			case 1:
				want = []added{{i}, {i}}
			case 2:
				if k.err != errRefused {
					t.Errorf("caller %d: %v; want its refusal as it is", i, k.err)
				}
				continue
			case 3:
				want = nil
			}
			got := k.result
			if k.err != nil || !slices.Equal(got.Events, want) {
				t.Errorf("caller %d got %v, %v; want %v", i, got.Events, k.err, want)
				continue
			}
			if other, twice := ends[got.Version]; twice && want != nil {
				t.Errorf("callers %d and %d both have version %d", other, i, got.Version)
			}
			if want != nil {
				ends[got.Version] = i
			}
			if got.State.N != sums[got.Version] || got.Position != records[got.Version-1].Position {
				t.Errorf("caller %d: state %d at version %d, position %d; the store says %d at position %d",
					i, got.State.N, got.Version, got.Position, sums[got.Version], records[got.Version-1].Position)
			}
		}
	})
}

func TestManyCommandsNeedFewAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, rounds = 64, 20
		store := newSpy()
		repo := newTally(store)
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			time.Sleep(time.Millisecond) // what a commit costs
			return write()
		}
		var wait sync.WaitGroup
		for range callers {
			wait.Go(func() {
				for range rounds {
					if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		if n := len(store.take().Appends); n > 2*rounds {
			t.Errorf("%d commands took %d appends; one for each round of %d callers is enough", callers*rounds, n, callers)
		}
		if at, err := repo.Load(t.Context(), "1"); err != nil || at.State.N != callers*rounds || at.Version != callers*rounds {
			t.Errorf("the sum is %d at version %d, %v; want %d", at.State.N, at.Version, err, callers*rounds)
		}
	})
}

func TestAggregatesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		hold := make(chan struct{})
		store.append = func(_ context.Context, appends []es.Append, write func() (es.Position, error)) (es.Position, error) {
			if appends[0].Stream == tally1 {
				<-hold
			}
			return write()
		}
		k := call(t.Context(), repo, add(1))
		synctest.Wait()
		if _, err := repo.Execute(t.Context(), "2", add(2)); err != nil {
			t.Error(err)
		}
		if k.answered() {
			t.Error("the append was not held back")
		}
		close(hold)
		<-k.done
	})
}

func TestConflictRetriesTheWholeRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo, elsewhere := newTally(store), newTally(store.Log)
		conflicts := 0
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			if conflicts++; conflicts == 1 {
				if _, err := elsewhere.Execute(t.Context(), "1", add(100)); err != nil {
					t.Error(err)
				}
			}
			return write()
		}
		const limit = 3
		upTo := func(s total) ([]added, error) { // refuses once 100 is there
			if s.N > limit {
				return nil, errRefused
			}
			return []added{{1}}, nil
		}
		callers, seen := crowd(store, repo,
			func() *caller { return call(t.Context(), repo, upTo) },
			func() *caller { return call(t.Context(), repo, add(5)) },
			func() *caller { return call(t.Context(), repo, nothing) },
		)
		a, b, c := callers[0], callers[1], callers[2]
		if a.err != errRefused {
			t.Errorf("the first was decided on a state that was none any more: %v, %v", a.result, a.err)
		}
		if want := (es.Result[total, added]{Versioned: es.Versioned[total]{State: total{106}, Version: 3, Position: 3}, Events: []added{{5}}}); !cmp.Equal(b.result, want) || b.err != nil {
			t.Errorf("the second got %v, %v; want %v", b.result, b.err, want)
		}
		if c.err != nil || c.result.Version != 3 || c.result.State.N != 106 || c.result.Position != 3 {
			t.Errorf("the third got %v, %v; want no events at version 3", c.result, c.err)
		}
		if diff := cmp.Diff(notes{Reads: []es.Version{0}, Records: 2, Appends: []int{2, 1}}, seen); diff != "" { // the last known record, and the tail
			t.Errorf("one tail should have been read (-want +got):\n%s", diff)
		}
	})
}

func TestFailedAppendFailsOnlyCommandsWithEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		broken := errors.New("disk full")
		store.append = func(context.Context, []es.Append, func() (es.Position, error)) (es.Position, error) { return 0, broken }
		unlessMore := func(s total) ([]added, error) { // does nothing if the one before took place
			if s.N > 1 {
				return nil, nil
			}
			return []added{{7}}, nil
		}
		callers, _ := crowd(store, repo,
			func() *caller { return call(t.Context(), repo, add(1)) },
			func() *caller { return call(t.Context(), repo, refuse) },
			func() *caller { return call(t.Context(), repo, nothing) },
			func() *caller { return call(t.Context(), repo, unlessMore) },
		)
		writer, refused, idle, hopeful := callers[0], callers[1], callers[2], callers[3]
		if !errors.Is(writer.err, broken) || writer.err == broken {
			t.Errorf("the writer got %v; want the store's error, with the stream's name", writer.err)
		}
		if refused.err != errRefused {
			t.Errorf("the refused one got %v", refused.err)
		}
		if idle.err != nil || idle.result.Version != 1 {
			t.Errorf("the one with nothing to do got %v, %v; want version 1", idle.result, idle.err)
		}
		if !errors.Is(hopeful.err, broken) {
			t.Errorf("%v, %v: an answer that rests on an append that failed", hopeful.result, hopeful.err)
		}
		store.append = nil
		result, err := repo.Execute(t.Context(), "1", add(2))
		if want := (total{3}); err != nil || result.State != want {
			t.Errorf("after the failure: %v, %v; want %v", result, err, want)
		}
	})
}

func TestRoundsObeyAppendLimits(t *testing.T) {
	for _, test := range []struct {
		name    string
		codec   *es.Codec[added]
		command do
		callers int
		want    []int
	}{
		{"events", tallyCodec, add(make([]int, es.MaxEvents*2/5)...), 5, []int{2, 2, 1}},
		{"events, to the last one", tallyCodec, add(make([]int, es.MaxEvents/2)...), 4, []int{2, 2}},
		{"bytes", padded(make([]byte, es.MaxData)), add(1), 6, []int{4, 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSpy()
				repo := es.NewRepo(store, "tally", tally{}, test.codec)
				start := func() *caller { return call(t.Context(), repo, test.command) }
				callers, seen := crowd(store, repo, slices.Repeat([]func() *caller{start}, test.callers)...)
				for _, k := range callers {
					if k.err != nil {
						t.Error(k.err)
					}
				}
				if diff := cmp.Diff(test.want, seen.Appends); diff != "" {
					t.Errorf("the commands were not split over appends as the limits ask (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// padded returns a codec whose events all have the same data.
func padded(data []byte) *es.Codec[added] {
	return es.CodecFunc(func(added) (es.Record, error) { return es.Record{Type: "added", Data: data}, nil },
		func(es.Record) (added, error) { return added{1}, nil })
}

func TestDuplicateInOneRoundTakesEffectOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		done, err := repo.Execute(t.Context(), "1", add(100), es.CommandID("done"))
		if err != nil {
			t.Fatal(err)
		}
		send := func(c do, options ...es.ExecuteOption) func() *caller {
			return func() *caller { return call(t.Context(), repo, c, options...) }
		}
		callers, _ := crowd(store, repo,
			send(add(5), es.CommandID("c")),
			send(add(7)),
			send(refuse, es.CommandID("c")), // whatever it would be now: it is the same command
			send(add(100), es.CommandID("done")),
			send(nothing, es.CommandID("done")),
			send(refuse, es.CommandID("new")),
			send(add(9), es.CommandID("new")), // a refused one takes no effect, so this one is the first
			send(add(5), es.CommandID("c")),
		)
		for i, want := range map[int]es.Result[total, added]{
			0: {Versioned: es.Versioned[total]{State: total{106}, Version: 3, Position: 3}, Events: []added{{5}}},
			1: {Versioned: es.Versioned[total]{State: total{113}, Version: 4, Position: 4}, Events: []added{{7}}},
			2: {Versioned: es.Versioned[total]{State: total{106}, Version: 3, Position: 3}, Events: []added{{5}}, Repeated: true},
			3: repeated(done),
			4: repeated(done),
			6: {Versioned: es.Versioned[total]{State: total{122}, Version: 5, Position: 5}, Events: []added{{9}}},
			7: {Versioned: es.Versioned[total]{State: total{106}, Version: 3, Position: 3}, Events: []added{{5}}, Repeated: true},
		} {
			if k := callers[i]; k.err != nil || !cmp.Equal(k.result, want) {
				t.Errorf("caller %d: %v, %v; want %v", i, k.result, k.err, want)
			}
		}
		if callers[5].err != errRefused && !cmp.Equal(callers[5].result, repeated(callers[6].result)) {
			t.Errorf("the refused one: %v, %v", callers[5].result, callers[5].err)
		}
		if n := len(stored(t, store, tally1)); n != 5 {
			t.Errorf("%d events are stored, not 5", n)
		}
	})
}

// repeated returns the result of sending a command again.
func repeated[S, E any](first es.Result[S, E]) es.Result[S, E] {
	first.Repeated = true
	return first
}

func TestCloseWaitsForCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		hold := make(chan struct{})
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			<-hold
			return write()
		}
		under := call(t.Context(), repo, add(1))
		synctest.Wait()
		waits := call(t.Context(), repo, add(2))
		synctest.Wait()
		closed := make(chan struct{})
		go func() { defer close(closed); repo.Close(context.Background()) }()
		synctest.Wait()
		late := call(t.Context(), repo, add(4))
		synctest.Wait()
		if !late.answered() || !errors.Is(late.err, es.ErrClosed) {
			t.Errorf("a command after Close: %v, %v; want ErrClosed", late.result, late.err)
		}
		select {
		case <-closed:
			t.Error("Close did not wait")
		default:
		}
		close(hold)
		<-closed
		synctest.Wait()
		under.has(t, 1)
		waits.has(t, 3)
		if err := repo.Close(context.Background()); err != nil {
			t.Errorf("closed again: %v", err)
		}
		if err := newTally(store).Close(context.Background()); err != nil {
			t.Errorf("closed without having been used: %v", err)
		}
	})
}

func TestConflictsOfOneCommandDoNotCountForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		repo := newTally(store)
		repo.Retries = 2
		tries := 0
		store.append = func(_ context.Context, appends []es.Append, write func() (es.Position, error)) (es.Position, error) {
			switch tries++; tries {
			case 1, 2, 4: // the first command conflicts twice, and the one after it once
				return 0, &es.ConflictError{Stream: tally1, Expected: appends[0].Expected}
			}
			return write()
		}
		id := es.CommandID("same") // the second call is planned once the first one is written
		callers, _ := crowd(store, repo,
			func() *caller { return call(t.Context(), repo, add(2), id) },
			func() *caller { return call(t.Context(), repo, add(2), id) },
			func() *caller { return call(t.Context(), repo, add(4), es.ExpectVersion(7)) }, // always refused
		)
		for i, k := range callers[:2] {
			if <-k.done; k.err != nil {
				t.Errorf("caller %d: %v", i, k.err)
			}
		}
		var conflict *es.ConflictError
		if <-callers[2].done; !errors.As(callers[2].err, &conflict) || conflict.Expected != 7 {
			t.Errorf("the third caller got %v; want its own conflict", callers[2].err)
		}
	})
}
