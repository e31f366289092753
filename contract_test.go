package es_test

import (
	"context"
	"errors"
	"iter"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// Tests of a Repo with a store, a codec or rules that break their contract.

// holed is a store that omits a version.
type holed struct {
	es.Store
	without es.Version
}

func (s holed) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range s.Store.Read(ctx, stream, after) {
			if r.Version != s.without && !yield(r, err) {
				return
			}
		}
	}
}

func TestGapInHistoryIsAnError(t *testing.T) {
	store := newSpy()
	ones(t, store, nil, 5, 1)
	for _, missing := range []es.Version{1, 3} {
		repo := newTally(holed{store, missing})
		_, loading := repo.Load(t.Context(), "1")
		_, executing := repo.Execute(t.Context(), "1", add(1))
		for _, err := range []error{loading, executing} {
			if err == nil || !strings.Contains(err.Error(), "tally/1") || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("without version %d: %v; want it said, with the stream", missing, err)
			}
		}
	}
	if n := len(stored(t, store, tally1)); n != 5 {
		t.Errorf("there are %d events: a command was decided on a damaged history", n)
	}
}

func TestMissingEventsOfADuplicateAreAnError(t *testing.T) {
	store := newSpy()
	ones(t, store, nil, 2, 1)
	store.append = func(context.Context, []es.Append, func() (es.Position, error)) (es.Position, error) {
		return 0, &es.DuplicateError{Stream: tally1, Command: "c", First: 2, Last: 3}
	}
	_, err := newTally(store).Execute(t.Context(), "1", add(1), es.CommandID("c"))
	if err == nil || !strings.Contains(err.Error(), "tally/1") || !strings.Contains(err.Error(), "only 2 versions") {
		t.Errorf("%v; want it said, with the stream", err)
	}
}

func TestReadErrors(t *testing.T) {
	broken := errors.New("no route to host")
	for _, test := range []struct {
		name string
		call func(repo *tallies) error
	}{
		{"for Load", func(repo *tallies) error { _, err := repo.Load(t.Context(), "1"); return err }},
		{"for LoadAt", func(repo *tallies) error { _, err := repo.LoadAt(t.Context(), "1", 1); return err }},
		{"for a command on a state that is not cached", func(repo *tallies) error { _, err := repo.Execute(t.Context(), "2", add(1)); return err }},
		{"for a refusal to be confirmed", func(repo *tallies) error { _, err := repo.Execute(t.Context(), "1", refuse); return err }},
		{"for the result of the first time", func(repo *tallies) error {
			_, err := repo.Execute(t.Context(), "1", add(1), es.CommandID("c"))
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := newSpy()
			repo := newTally(store)
			if _, err := repo.Execute(t.Context(), "1", add(1), es.CommandID("c")); err != nil {
				t.Fatal(err)
			}
			store.read = func(context.Context) error { return broken }
			if err := test.call(repo); !errors.Is(err, broken) || !strings.Contains(err.Error(), "tally/") {
				t.Errorf("%v; want the store's error, with the stream", err)
			}
		})
	}
}

func TestUnconfirmedRefusalIsAnError(t *testing.T) {
	store := newSpy()
	repo := newTally(store)
	broken := errors.New("no route to host")
	store.append = func(context.Context, []es.Append, func() (es.Position, error)) (es.Position, error) { return 0, broken }
	for name, c := range map[string]do{"a refusal": refuse, "a no-op": nothing} {
		if result, err := repo.Execute(t.Context(), "1", c, es.CommandID("c")); !errors.Is(err, broken) {
			t.Errorf("%s: %v, %v; whether the command is there already could not be asked", name, result, err)
		}
	}
}

func TestUnstorableEventsAreRefused(t *testing.T) {
	store := newSpy()
	type ratio struct{ R float64 }
	codec := es.JSON(map[string]happening{"ratio": ratio{}})
	repo := es.NewRepo(store, "thing", anything{}, codec)
	if _, err := repo.Execute(t.Context(), "1", happening(ratio{math.NaN()})); err == nil || !strings.Contains(err.Error(), `encode ratio`) {
		t.Errorf("%v; want it said, with the name of the event", err)
	}
	large := es.NewRepo(store, "tally", tally{}, padded(make([]byte, es.MaxData+1)))
	if _, err := large.Execute(t.Context(), "1", add(1)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("%v; want ErrInvalid", err)
	}
	if _, err := newTally(store).Execute(t.Context(), "1", add(make([]int, es.MaxEvents+1)...)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("%v; want ErrInvalid", err)
	}
	if got := store.take(); len(got.Appends) != 0 {
		t.Errorf("the store was asked to append %d times", len(got.Appends))
	}
}

func TestEventsReturnedWithAnErrorAreNotWritten(t *testing.T) {
	store := newSpy()
	both := func(total) ([]added, error) { return []added{{1}}, errRefused }
	if result, err := newTally(store).Execute(t.Context(), "1", both); err != errRefused || len(stored(t, store, tally1)) != 0 {
		t.Errorf("%v, %v; want a refusal and nothing written", result, err)
	}
}

// marking returns a codec that gives every event the same metadata map.
func marking(meta map[string]string) *es.Codec[added] {
	return es.CodecFunc(func(e added) (es.Record, error) {
		r, err := tallyCodec.Encode(e)
		r.Meta = meta
		return r, err
	}, tallyCodec.Decode)
}

func TestMetadataOfCodecAndCommand(t *testing.T) {
	store := newSpy()
	meta := map[string]string{"schema": "3", "by": "codec"}
	repo := es.NewRepo(store, "tally", tally{}, marking(meta))
	mine := map[string]string{"by": "ann"}
	for _, options := range [][]es.ExecuteOption{{es.Meta(mine)}, nil} {
		if _, err := repo.Execute(t.Context(), "1", add(1, 2), options...); err != nil {
			t.Fatal(err)
		}
	}
	var got []map[string]string
	for _, r := range stored(t, store, tally1) {
		got = append(got, r.Meta)
	}
	both := map[string]string{"schema": "3", "by": "ann"}
	if diff := cmp.Diff([]map[string]string{both, both, meta, meta}, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if len(meta) != 2 || meta["by"] != "codec" || len(mine) != 1 {
		t.Errorf("the maps given were changed: %v, %v", meta, mine)
	}
}

func TestCausedByAndMetaCombine(t *testing.T) {
	first := es.Record{Stream: tally1, Version: 4, Meta: map[string]string{es.MetaCorrelation: "visit"}}
	store := newSpy()
	repo := newTally(store)
	if _, err := repo.Execute(t.Context(), "1", add(1), es.CausedBy(first), es.Meta(map[string]string{"by": "ann"})); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{es.MetaCorrelation: "visit", es.MetaCausation: "tally/1/4", "by": "ann"}
	if diff := cmp.Diff(want, stored(t, store, tally1)[0].Meta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestDuplicateOfACommandThatWasNotSentIsAnError(t *testing.T) {
	store := newSpy()
	repo := newTally(store)
	calls := 0
	store.append = func(_ context.Context, appends []es.Append, write func() (es.Position, error)) (es.Position, error) {
		if calls++; calls > 3 || appends[0].Command == "" {
			return write()
		}
		return 0, &es.DuplicateError{Stream: tally1, Command: strings.ToLower(appends[0].Command), First: 1, Last: 1}
	}
	_, err := repo.Execute(t.Context(), "1", add(1), es.CommandID("X"))
	var duplicate *es.DuplicateError
	if !errors.As(err, &duplicate) || !strings.Contains(err.Error(), `"x"`) || calls != 1 {
		t.Errorf("%v after %d calls of Append; want an error that names the command, after one", err, calls)
	}
}
