package schema_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/schema"
	"github.com/thalo-go/es/sqlite"
)

// counting counts the records that are read.
type counting struct {
	es.Log
	read int
}

func (c *counting) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range c.Log.All(ctx, after, filter) {
			c.read++
			if !yield(r, err) {
				return
			}
		}
	}
}

// put appends events of a type to a stream.
func put(t *testing.T, log es.Log, kind, typ, data string, n int) {
	t.Helper()
	for n > 0 {
		events := make([]es.Record, min(n, es.MaxEvents))
		for i := range events {
			events[i] = es.Record{Type: typ, Data: []byte(data)}
		}
		if _, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: kind, ID: "1"}, Expected: es.AnyVersion, Events: events}); err != nil {
			t.Fatal(err)
		}
		n -= len(events)
	}
}

func TestCheckDecodesTheNewestOfEachType(t *testing.T) {
	codec := es.JSON(map[string]account.Event{"opened": account.Opened{}, "deposited": account.Deposited{}, "withdrawn": account.Withdrawn{}}).Retire("printed")
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "bank.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for name, log := range map[string]es.Log{"Mem": new(es.Mem), "SQLite": store} {
		t.Run(name, func(t *testing.T) {
			put(t, log, "account", "opened", `{"Owner":7}`, 1) // older than the newest three
			put(t, log, "account", "opened", `{"Owner":"Ann"}`, 3)
			put(t, log, "account", "printed", `not JSON`, 2)
			put(t, log, "other", "opened", `not JSON`, 5)
			put(t, log, "account", "deposited", `{"Amount":1}`, 1500)
			got, err := schema.Check(t.Context(), log, codec, 3, "account")
			want := schema.Checked{Read: 1511, Whole: true, Decoded: map[string]int{"opened": 3, "printed": 2, "deposited": 3}, Missing: []string{"withdrawn"}}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if _, err := schema.Check(t.Context(), log, codec, 4, "account"); err == nil || !strings.Contains(err.Error(), "position 1: es: decode account/1/1") {
				t.Errorf("with the oldest event, Check returned %v", err)
			}
			put(t, log, "account", "closed", `{}`, 2)
			put(t, log, "account", "withdrawn", `{"Amount":"much"}`, 2)
			_, err = schema.Check(t.Context(), log, codec, 2)
			var unknown *es.UnknownEventError
			if !errors.As(err, &unknown) || unknown.Type != "closed" || strings.Count(err.Error(), "\n") != 2 {
				t.Errorf("Check returned %v, want an error for each of closed, opened and withdrawn", err)
			}
		})
	}
}

func TestCheckOfAnEmptyLog(t *testing.T) {
	got, err := schema.Check(t.Context(), new(es.Mem), account.Codec, 1)
	if err != nil || !got.Whole || len(got.Missing) != len(account.Codec.Names()) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := schema.Check(t.Context(), new(es.Mem), account.Codec, 0); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("n = 0 returned %v", err)
	}
}

// TestCheckDoesNotReadALongLog has the types of a log in eras.
func TestCheckDoesNotReadALongLog(t *testing.T) {
	const length, eras = 200_000, 8
	log := &counting{Log: new(es.Mem)}
	events := make(map[string]account.Event)
	for era := range eras {
		put(t, log, "account", fmt.Sprint("era-", era), `{"Amount":1}`, length/eras)
	}
	events["era-7"] = account.Deposited{}
	codec := es.JSON(events)
	for era := range eras - 1 {
		codec.Rename(fmt.Sprint("era-", era), "era-7")
	}
	got, err := schema.Check(t.Context(), log, codec, 3)
	if err != nil || got.Whole || len(got.Decoded) != eras || len(got.Missing) != 0 {
		t.Errorf("%+v, %v: want records of all %d types, and not the whole log", got, err, eras)
	}
	if most := 100_000 + 32*1000; got.Read > most || log.read != got.Read {
		t.Errorf("%d records were read, and %d are said to be; want %d at most", log.read, got.Read, most)
	}
	if !slices.Equal(codec.Names(), []string{"era-7"}) {
		t.Errorf("the names are %q", codec.Names())
	}
}
