package work_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestWritersShareNoStream(t *testing.T) {
	seen := make(map[es.Stream]int)
	next := make(map[es.Stream]es.Version)
	for i, w := range work.NewWriters(100) {
		for range 35 {
			stream, after := w.Next(3)
			if other, found := seen[stream]; found && other != i {
				t.Fatalf("writers %d and %d share %s", other, i, stream)
			}
			if seen[stream] = i; after != next[stream] {
				t.Fatalf("%s: append after %d, want %d", stream, after, next[stream])
			}
			next[stream] = after + 3
		}
	}
	if len(seen) != 400 {
		t.Errorf("%d streams, want 100 writers on 4 each", len(seen))
	}
}

func TestEventsHaveTheirSize(t *testing.T) {
	for _, bytes := range []int{11, 100, 10_000} {
		for _, e := range work.Events(3, bytes) {
			if len(e.Data) != bytes {
				t.Errorf("event of %d bytes, want %d", len(e.Data), bytes)
			}
		}
	}
}

func TestFillAppendsTheNumberOfRecords(t *testing.T) {
	log := new(es.Mem)
	if err := work.Fill(t.Context(), work.To(log), 12_345, 20); err != nil {
		t.Fatal(err)
	}
	if head, err := es.Head(t.Context(), log); head != 12_345 || err != nil {
		t.Errorf("head is %d, err %v", head, err)
	}
}

// Both sides must load the same account. Otherwise one could be faster because it does less.
func TestBothSidesLoadTheSameAccount(t *testing.T) {
	ctx := t.Context()
	plain, err := baseline.OpenSQLite(t.TempDir() + "/plain.db")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	history, err := work.History(101)
	if err != nil {
		t.Fatal(err)
	}
	stream, log := es.Stream{Kind: "account", ID: "1"}, new(es.Mem)
	for _, to := range []work.Append{work.To(log), plain.Append} {
		if err := to(ctx, stream, 0, history); err != nil {
			t.Fatal(err)
		}
	}
	at, err := work.NewRepo(log).Load(ctx, "1")
	want, wantVersion := at.State, at.Version
	if err != nil {
		t.Fatal(err)
	}
	got, version, err := baseline.Accounts{Store: plain}.Load(ctx, "1")
	if err != nil || got != want || version != wantVersion {
		t.Errorf("baseline: %+v, version %d, err %v; want %+v, version %d", got, version, err, want, wantVersion)
	}
	if want != (account.Account{Owner: "Ada Lovelace", Balance: 50, Open: true}) {
		t.Errorf("history results in %+v", want)
	}
}
