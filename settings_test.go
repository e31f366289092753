package es_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
)

func TestNewRepoRefusesNil(t *testing.T) {
	for name, create := range map[string]func(){
		"store is nil":  func() { es.NewRepo(nil, "tally", tally{}, tallyCodec) },
		"rules are nil": func() { es.NewRepo[total, do](newSpy(), "tally", nil, tallyCodec) },
		"codec is nil":  func() { es.NewRepo(newSpy(), "tally", tally{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if said, _ := recover().(string); !strings.Contains(said, name) {
					t.Errorf("it panicked with %q, want it to say %q", said, name)
				}
			}()
			create()
		})
	}
}

func TestNegativeSnapshotEveryIsRefused(t *testing.T) {
	store := newSpy()
	repo := newTally(store)
	repo.SnapshotEvery = -7
	_, executing := repo.Execute(t.Context(), "1", add(1))
	_, loading := repo.Load(t.Context(), "1")
	_, loadingAt := repo.LoadAt(t.Context(), "1", 0)
	for _, err := range []error{executing, loading, loadingAt} {
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "SnapshotEvery is -7") {
			t.Errorf("got %v, want an error that names SnapshotEvery and wraps ErrInvalid", err)
		}
	}
	if n := len(stored(t, store, tally1)); n != 0 {
		t.Errorf("%d events were stored", n)
	}
}

func TestLoadReturnsTheTimeOfTheLastEvent(t *testing.T) {
	store := newSpy()
	repo := newTally(store)
	for range 2 {
		if result, err := repo.Execute(t.Context(), "1", add(1)); err != nil || !result.Time.IsZero() {
			t.Fatalf("%v, %v: want no time, as the store does not report it", result.Time, err)
		}
	}
	records := stored(t, store, tally1)
	for _, r := range records {
		if at, err := repo.LoadAt(t.Context(), "1", r.Version); err != nil || !at.Time.Equal(r.Time) || at.Position != r.Position {
			t.Errorf("LoadAt version %d: time %v, position %d, %v; want those of the record", r.Version, at.Time, at.Position, err)
		}
	}
	if at, err := repo.Load(t.Context(), "1"); err != nil || !at.Time.Equal(records[1].Time) {
		t.Errorf("Load: time %v, %v; want %v", at.Time, err, records[1].Time)
	}
	if result, err := repo.Execute(t.Context(), "1", nothing); err != nil || !result.Time.IsZero() {
		t.Errorf("a no-op: time %v, %v; want none, as for every other result", result.Time, err)
	}
}

// hanging keeps snapshots that are never saved.
type hanging struct{ es.Snapshots }

func (hanging) SaveSnapshot(ctx context.Context, _ es.Snapshot) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCloseWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newSpy()
		repo := newTally(log)
		repo.Snapshots, repo.SnapshotEvery = hanging{new(es.Mem)}, 1
		if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := repo.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Close returned %v after %v; want the end of the context after a second", err, time.Since(start))
		}
		if _, err := repo.Execute(t.Context(), "1", add(1)); !errors.Is(err, es.ErrClosed) {
			t.Errorf("a command after Close: %v; want ErrClosed", err)
		}
		synctest.Wait() // Close cancelled the save
	})
}

func TestAPanicIsOneLineAndItsStackIsLogged(t *testing.T) {
	var log bytes.Buffer
	repo := es.NewRepo(newSpy(), "tally", tally{func(added) { panic("first\nsecond") }}, tallyCodec)
	repo.Logger = slog.New(slog.NewTextHandler(&log, nil))
	defer func() {
		p, _ := recover().(*es.PanicError)
		if p == nil || p.Error() != "panic: first second" || !strings.Contains(string(p.Stack), "settings_test.go") {
			t.Errorf("got %v", p)
		}
		if said := log.String(); !strings.Contains(said, "tally/1") || !strings.Contains(said, "settings_test.go") {
			t.Errorf("the log has neither the stream nor the stack: %s", said)
		}
	}()
	_, _ = repo.Execute(t.Context(), "1", add(1))
}
