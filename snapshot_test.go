package es_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
)

// shelf keeps snapshots in memory. Tests can inspect it and inject faults.
type shelf struct {
	es.Mem
	save func() error // called before each SaveSnapshot, if set
	load func() error // called before each LoadSnapshot, if set

	mu    sync.Mutex
	saved []es.Version // in the order in which they came
}

func (s *shelf) SaveSnapshot(ctx context.Context, snapshot es.Snapshot) error {
	s.mu.Lock()
	s.saved = append(s.saved, snapshot.Version)
	s.mu.Unlock()
	if s.save != nil {
		if err := s.save(); err != nil {
			return err
		}
	}
	return s.Mem.SaveSnapshot(ctx, snapshot)
}

func (s *shelf) LoadSnapshot(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
	if s.load != nil {
		if err := s.load(); err != nil {
			return es.Snapshot{}, err
		}
	}
	return s.Mem.LoadSnapshot(ctx, stream)
}

func (s *shelf) versions() []es.Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.saved)
}

// withSnapshots returns a Repo without a cache, so that each command loads.
func withSnapshots(store es.Store, shelf es.Snapshots, every int) *tallies {
	repo := newTally(store)
	repo.Snapshots, repo.SnapshotEvery, repo.CacheSize = shelf, every, -1
	return repo
}

// ones writes n events of 1 and waits until their snapshots are saved.
func ones(t *testing.T, store es.Store, shelf es.Snapshots, n, every int) {
	t.Helper()
	repo := withSnapshots(store, shelf, every)
	repo.CacheSize = 0 // without a cache each command loads, and whether a snapshot is taken again depends on whether the last one was saved by then
	for range n {
		if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotEvery(t *testing.T) {
	for name, test := range map[string]struct {
		every int
		steps []int // events of each command
		want  []es.Version
	}{
		"one at a time":     {3, []int{1, 1, 1, 1, 1, 1, 1}, []es.Version{3, 6}},
		"several at a time": {10, []int{8, 5, 5, 5, 30}, []es.Version{13, 23, 53}},
		"by default":        {0, []int{99, 1, 99, 1}, []es.Version{100, 200}},
		"after each event":  {1, []int{1, 1}, []es.Version{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, shelf := newSpy(), new(shelf)
				repo := newTally(store)
				repo.Snapshots, repo.SnapshotEvery = shelf, test.every
				for _, n := range test.steps {
					if _, err := repo.Execute(t.Context(), "1", add(make([]int, n)...)); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				if diff := cmp.Diff(test.want, shelf.versions()); diff != "" {
					t.Errorf("snapshots (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestLoadOfALongStreamSavesASnapshot(t *testing.T) {
	store, shelf := newSpy(), new(shelf)
	ones(t, store, nil, 25, 10)
	repo := withSnapshots(store, shelf, 10)
	if _, err := repo.Load(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]es.Version{25}, shelf.versions()); diff != "" {
		t.Errorf("snapshots (-want +got):\n%s", diff)
	}
}

func TestLoadStartsFromTheSnapshot(t *testing.T) {
	store, shelf := newSpy(), new(shelf)
	ones(t, store, shelf, 25, 10)
	repo := withSnapshots(store, shelf, 10)
	for _, test := range []struct {
		name    string
		at      es.Version
		records int // 1 for the event at which the snapshot stands, and those after it
	}{
		{"as it is now", 25, 1 + 5},
		{"at a version after the snapshot", 22, 1 + 2},
		{"at the snapshot's version", 20, 1},
		{"at a version before it", 19, 19},
		{"at version 0", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			store.take()
			at, err := repo.LoadAt(t.Context(), "1", test.at)
			state := at.State
			if err != nil || state.N != int(test.at) {
				t.Errorf("%v, %v; want %d", state, err, test.at)
			}
			if n := store.take().Records; n != test.records {
				t.Errorf("it read %d records, not %d", n, test.records)
			}
		})
	}
	t.Run("for a command", func(t *testing.T) {
		store.take()
		result, err := repo.Execute(t.Context(), "1", add(1))
		if err != nil || result.State.N != 26 || result.Version != 26 || result.Position != 26 {
			t.Errorf("%v, %v; want 26", result, err)
		}
		if n := store.take().Records; n != 1+5 {
			t.Errorf("it read %d records, not %d", n, 1+5)
		}
	})
	t.Run("a version that was not reached", func(t *testing.T) {
		if _, err := repo.LoadAt(t.Context(), "1", 27); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%v; want ErrInvalid", err)
		}
	})
}

func TestUnusableSnapshotIsIgnored(t *testing.T) {
	put := func(change func(*es.Snapshot)) func(*testing.T, *shelf) {
		return func(t *testing.T, s *shelf) {
			ones(t, newSpy(), s, 20, 20) // a history like the one to load
			snapshot, err := s.Mem.LoadSnapshot(t.Context(), tally1)
			if err != nil || snapshot.Version != 20 {
				t.Fatalf("%+v, %v", snapshot, err)
			}
			snapshot.Schema = 1
			change(&snapshot)
			if err := s.Mem.SaveSnapshot(t.Context(), snapshot); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name    string
		disturb func(*testing.T, *shelf)
		says    string // to the logger
		good    bool
	}{
		{"as it should be", put(func(*es.Snapshot) {}), "", true},
		{"missing", func(*testing.T, *shelf) {}, "", false},
		{"broken", put(func(s *es.Snapshot) { s.Data = []byte(`{"N":`) }), "corrupt", false},
		{"of another layout", put(func(s *es.Snapshot) { s.Data = []byte(`{"N":"twenty"}`) }), "another state layout", false},
		{"empty", put(func(s *es.Snapshot) { s.Data = nil }), "corrupt", false},
		{"of an older schema", put(func(s *es.Snapshot) { s.Schema = 0 }), "", false},
		{"of a newer schema", put(func(s *es.Snapshot) { s.Schema = 2 }), "", false},
		{"ahead of the store", put(func(s *es.Snapshot) { s.Version, s.Position = 30, 30 }), "does not match the store's history", false},
		{"just ahead of the store", put(func(s *es.Snapshot) { s.Version, s.Position = 26, 26 }), "does not match the store's history", false},
		{"of another history", put(func(s *es.Snapshot) { s.Position = 19 }), "does not match the store's history", false},
		{"of no version that can be", put(func(s *es.Snapshot) { s.Version, s.Position = -3, 3 }), "does not match the store's history", false},
		{"out of reach", func(_ *testing.T, s *shelf) { s.load = func() error { return errors.New("no route to host") } }, "no route to host", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			store, shelf, journal := newSpy(), new(shelf), new(logged.Text)
			ones(t, store, nil, 25, 10)
			test.disturb(t, shelf)
			repo := withSnapshots(store, shelf, 10)
			repo.SnapshotSchema, repo.Logger = 1, journal.Logger()
			store.take()
			at, err := repo.Load(t.Context(), "1")
			state, version := at.State, at.Version
			if err != nil || state.N != 25 || version != 25 {
				t.Errorf("%v at version %d, %v; want 25", state, version, err)
			}
			if n := store.take().Records; test.good != (n == 6) || !test.good && n < 25 {
				t.Errorf("it read %d records", n)
			}
			if err := repo.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if said := journal.String(); !strings.Contains(said, test.says) || (said == "") != (test.says == "") || said != "" && !strings.Contains(said, "tally/1") {
				t.Errorf("the logger received %q; want %q and the stream", said, test.says)
			}
		})
	}
}

func TestCorruptSnapshotIsReplaced(t *testing.T) {
	store, shelf := newSpy(), new(shelf)
	ones(t, store, nil, 25, 10)
	if err := shelf.Mem.SaveSnapshot(t.Context(), es.Snapshot{Stream: tally1, Version: 20, Position: 20, Data: []byte(`{`)}); err != nil {
		t.Fatal(err)
	}
	ones(t, store, shelf, 1, 10)
	snapshot, err := shelf.LoadSnapshot(t.Context(), tally1)
	if err != nil || snapshot.Version < 25 {
		t.Errorf("%v, %v; want a new one", snapshot, err)
	}
}

// secretive is a state whose field JSON ignores; touchyState panics when JSON encodes it.
type (
	secretive   struct{ n int }
	touchyState struct{ N int }
)

func (touchyState) MarshalJSON() ([]byte, error)  { panic(errTilt) }
func (*touchyState) UnmarshalJSON(b []byte) error { panic(errTilt) }

// counting has rules for any state.
type counting[S any] struct{ evolve func(S, added) S }

func (counting[S]) Decide(_ S, e added) ([]added, error) { return []added{e}, nil }
func (c counting[S]) Evolve(s S, e added) S              { return c.evolve(s, e) }

func TestStateThatDoesNotSurviveJSONIsNotSaved(t *testing.T) {
	journal, shelf := new(logged.Text), new(shelf)
	repo := es.NewRepo(new(es.Mem), "tally", counting[secretive]{func(s secretive, e added) secretive { return secretive{s.n + e.N} }}, tallyCodec)
	repo.Snapshots, repo.SnapshotEvery, repo.Logger = shelf, 1, journal.Logger()
	for range 10 {
		if _, err := repo.Execute(t.Context(), "1", added{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if n := len(shelf.versions()); n != 0 {
		t.Errorf("%d snapshots were kept", n)
	}
	said := journal.String()
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, "es_test.secretive") || !strings.Contains(said, "export its fields") {
		t.Errorf("the logger received %q; want one line with the type and what to do", said)
	}
}

func TestStateThatPanicsInJSONIsNotSaved(t *testing.T) {
	journal, shelf := new(logged.Text), new(shelf)
	rules := counting[touchyState]{func(s touchyState, e added) touchyState { return touchyState{s.N + e.N} }}
	repo := es.NewRepo(new(es.Mem), "tally", rules, tallyCodec)
	repo.Snapshots, repo.SnapshotEvery, repo.Logger, repo.CacheSize = shelf, 1, journal.Logger(), -1
	if err := shelf.Mem.SaveSnapshot(t.Context(), es.Snapshot{Stream: tally1, Version: 1, Position: 1, Data: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if result, err := repo.Execute(t.Context(), "1", added{1}); err != nil || result.State.N != i+1 {
			t.Fatalf("%v, %v; want %d", result, err, i+1)
		}
	}
	if err := repo.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if n := len(shelf.versions()); n != 0 {
		t.Errorf("%d snapshots were kept", n)
	}
	if said := journal.String(); !strings.Contains(said, "tilt") || !strings.Contains(said, "es_test.touchyState") {
		t.Errorf("the logger received %q; want the panic and the type", said)
	}
}

func TestFailedSaveIsLogged(t *testing.T) {
	journal, shelf := new(logged.Text), new(shelf)
	shelf.save = func() error { return errors.New("disk full") }
	repo := withSnapshots(newSpy(), shelf, 1)
	repo.Logger = journal.Logger()
	if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
		t.Fatal(err)
	}
	if err := repo.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if said := journal.String(); !strings.Contains(said, "disk full") || !strings.Contains(said, "tally/1") {
		t.Errorf("the logger received %q", said)
	}
}

func TestSlowSnapshotsDelayNoCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		store, shelf := newSpy(), new(shelf)
		shelf.save = func() error { <-hold; return nil }
		repo := withSnapshots(store, shelf, 10)
		for range 45 {
			if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		// What is asked of an earlier version takes no place of what waits.
		if at, err := repo.LoadAt(t.Context(), "1", 15); err != nil || at.State.N != 15 {
			t.Errorf("%v, %v; want 15", at.State, err)
		}
		closed := make(chan struct{})
		go func() { defer close(closed); repo.Close(context.Background()) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close does not wait for the snapshot in flight")
		default:
		}
		close(hold)
		<-closed
		if diff := cmp.Diff([]es.Version{10, 40}, shelf.versions()); diff != "" {
			t.Errorf("of those that waited the latest is enough (-want +got):\n%s", diff)
		}
	})
}

func TestPendingSnapshotsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		shelf := new(shelf)
		shelf.save = func() error { <-hold; return nil }
		repo := withSnapshots(newSpy(), shelf, 1)
		for i := range 1000 {
			if _, err := repo.Execute(t.Context(), strconv.Itoa(i), add(1)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		close(hold)
		synctest.Wait()
		if n := len(shelf.versions()); n < 100 || n > 500 {
			t.Errorf("%d snapshots waited; want some hundreds at most", n)
		}
		if _, err := repo.Execute(t.Context(), "999", add(1)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s, err := shelf.LoadSnapshot(t.Context(), es.Stream{Kind: "tally", ID: "999"}); err != nil || s.Version != 2 {
			t.Errorf("%v, %v; a state dropped for lack of room must be considered again", s, err)
		}
	})
}

func TestLoadDuringClose(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			hold := make(chan struct{})
			store, shelf := newSpy(), new(shelf)
			ones(t, store, nil, 3, 1)
			shelf.save = func() error { <-hold; return nil }
			repo := withSnapshots(store, shelf, 1)
			go func() {
				if at, err := repo.Load(t.Context(), "1"); err != nil || at.State.N != 3 {
					t.Errorf("%v, %v; want 3", at.State, err)
				}
			}()
			go repo.Close(context.Background())
			synctest.Wait()
			close(hold)
		})
	}
}

func TestNoSnapshotAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, shelf := newSpy(), new(shelf)
		ones(t, store, nil, 3, 1)
		repo := withSnapshots(store, shelf, 1)
		repo.Close(context.Background())
		if at, err := repo.Load(t.Context(), "1"); err != nil || at.State.N != 3 {
			t.Errorf("%v, %v; want 3", at.State, err)
		}
		synctest.Wait()
		if n := len(shelf.versions()); n > 0 {
			t.Errorf("%d snapshots were taken after Close had waited for them", n)
		}
	})
}

func TestNewerSnapshots(t *testing.T) {
	for _, test := range []struct {
		a, b es.Snapshot
		want bool
	}{
		{es.Snapshot{Schema: 1, Version: 5}, es.Snapshot{Schema: 1, Version: 4}, true},
		{es.Snapshot{Schema: 1, Version: 5}, es.Snapshot{Schema: 1, Version: 5}, false},
		{es.Snapshot{Schema: 2, Version: 1}, es.Snapshot{Schema: 1, Version: 9}, true},
		{es.Snapshot{Schema: 1, Version: 9}, es.Snapshot{Schema: 2, Version: 1}, false},
	} {
		if got := test.a.Newer(test.b); got != test.want {
			t.Errorf("schema %d version %d is newer than schema %d version %d: %t", test.a.Schema, test.a.Version, test.b.Schema, test.b.Version, got)
		}
	}
}

func TestOldProgramKeepsSnapshotsOfANewOne(t *testing.T) {
	store, shelf := newSpy(), new(shelf)
	for _, schema := range []int{2, 1} {
		repo := withSnapshots(store, shelf, 1)
		repo.SnapshotSchema = schema
		if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
			t.Fatal(err)
		}
		if err := repo.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, err := shelf.LoadSnapshot(t.Context(), tally1)
	if err != nil || snapshot.Schema != 2 || snapshot.Version != 1 {
		t.Errorf("%+v, %v; want that of schema 2", snapshot, err)
	}
	if at, err := withSnapshots(store, shelf, 1).Load(t.Context(), "1"); err != nil || at.State.N != 2 || !json.Valid(snapshot.Data) {
		t.Errorf("%v, %v; want 2", at.State, err)
	}
}

// timed is a state with a time as the program read it, with a zone and a monotonic clock.
type timed struct {
	N  int
	At time.Time
}

func TestOneStateThatDoesNotSurviveJSONDoesNotStopTheOthers(t *testing.T) {
	journal, shelf := new(logged.Text), new(shelf)
	rules := counting[timed]{func(s timed, e added) timed {
		if e.N == 13 {
			s.At = time.Now()
		}
		return timed{s.N + e.N, s.At}
	}}
	repo := es.NewRepo(new(es.Mem), "tally", rules, tallyCodec)
	repo.Snapshots, repo.SnapshotEvery, repo.Logger = shelf, 1, journal.Logger()
	for _, step := range []struct {
		id string
		n  int
	}{{"1", 13}, {"1", 1}, {"2", 1}, {"1", 1}} {
		if _, err := repo.Execute(t.Context(), step.id, added{step.n}); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for id, want := range map[string]es.Version{"1": 0, "2": 1} {
		if s, err := shelf.LoadSnapshot(t.Context(), es.Stream{Kind: "tally", ID: id}); err != nil || s.Version != want {
			t.Errorf("the snapshot of tally/%s has version %d, %v; want %d", id, s.Version, err, want)
		}
	}
	if said := journal.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "tally/1") {
		t.Errorf("the logger received %q; want one line with the stream", said)
	}
}

func TestSnapshotOfAnotherLayoutIsIgnored(t *testing.T) {
	type (
		sum     struct{ N int }
		renamed struct{ Sum int }
		retyped struct{ N float64 }
		more    struct{ N, Count int }
		deep    struct {
			N    int
			Deep map[string][]*sum
		}
		deeper struct {
			N    int
			Deep map[string][]*renamed
		}
		again struct{ N int } // another name, the same layout
	)
	snapshotOf[sum](t).readBy(t,
		layout{"another name of the type", false, reader(func(s again, e added) again { s.N += e.N; return s })},
		layout{"a renamed field", true, reader(func(s renamed, e added) renamed { s.Sum += e.N; return s })},
		layout{"a field of another type", true, reader(func(s retyped, e added) retyped { s.N++; return s })},
		layout{"one more field", true, reader(func(s more, e added) more { s.N, s.Count = s.N+e.N, s.Count+1; return s })},
	)
	snapshotOf[deep](t).readBy(t,
		layout{"the same", false, reader(func(s deep, e added) deep { s.N += e.N; return s })},
		layout{"a field deep within", true, reader(func(s deeper, e added) deeper { s.N += e.N; return s })},
	)
}

// layout is a state that reads the snapshot of another one.
type layout struct {
	name    string
	ignored bool // the snapshot must not be used
	read    func(t *testing.T, store *spy, shelf es.Snapshots)
}

func reader[S any](evolve func(S, added) S) func(*testing.T, *spy, es.Snapshots) {
	return func(t *testing.T, store *spy, shelf es.Snapshots) {
		repo := es.NewRepo(store, "tally", counting[S]{evolve}, tallyCodec)
		repo.Snapshots, repo.CacheSize = shelf, -1
		if _, err := repo.Load(t.Context(), "1"); err != nil {
			t.Error(err)
		}
	}
}

// shelved is a store of five events and a snapshot of them.
type shelved struct {
	store *spy
	shelf *shelf
}

// snapshotOf saves a snapshot of a state of type S.
func snapshotOf[S any](t *testing.T) shelved {
	t.Helper()
	s := shelved{newSpy(), new(shelf)}
	repo := es.NewRepo(s.store, "tally", counting[S]{func(s S, _ added) S { return s }}, tallyCodec)
	repo.Snapshots, repo.SnapshotEvery = s.shelf, 5
	for range 5 {
		if _, err := repo.Execute(t.Context(), "1", added{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Close(context.Background()); err != nil || len(s.shelf.versions()) != 1 {
		t.Fatalf("snapshots %v, %v; want one", s.shelf.versions(), err)
	}
	return s
}

func (s shelved) readBy(t *testing.T, layouts ...layout) {
	t.Helper()
	for _, l := range layouts {
		s.store.take()
		l.read(t, s.store, &s.shelf.Mem)
		if got := s.store.take(); (got.Records == 5) != l.ignored {
			t.Errorf("%s: a load read %d records; the snapshot should be ignored: %v", l.name, got.Records, l.ignored)
		}
	}
}
