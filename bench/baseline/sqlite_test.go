package baseline_test

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/examples/bank/account"
)

func open(t *testing.T) *baseline.SQLite {
	t.Helper()
	s, err := baseline.OpenSQLite(t.TempDir() + "/plain.db")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A baseline that lost events or missed a conflict would not be an alternative to the toolkit.
func TestSQLite(t *testing.T) {
	stream := es.Stream{Kind: "account", ID: "1"}
	event := func(n int) es.Record { return es.Record{Type: "deposited", Data: []byte(strconv.Itoa(n))} }

	t.Run("returns events in order", func(t *testing.T) {
		s := open(t)
		if err := errors.Join(
			s.Append(t.Context(), stream, 0, []es.Record{event(1)}),
			s.Append(t.Context(), stream, 1, []es.Record{event(2), event(3)}),
		); err != nil {
			t.Fatal(err)
		}
		var read, scanned []string
		err := s.Read(t.Context(), stream, 1, func(version es.Version, name string, data []byte) error {
			read = append(read, strconv.Itoa(int(version))+name+string(data))
			return nil
		})
		if want := []string{"2deposited2", "3deposited3"}; err != nil || !slices.Equal(read, want) {
			t.Errorf("Read returned %v, err %v; want %v", read, err, want)
		}
		err = s.Scan(t.Context(), func(r es.Record) {
			scanned = append(scanned, strconv.Itoa(int(r.Position))+r.ID()+string(r.Data))
		})
		if want := []string{"1account/1/11", "2account/1/22", "3account/1/33"}; err != nil || !slices.Equal(scanned, want) {
			t.Errorf("Scan returned %v, err %v; want %v", scanned, err, want)
		}
	})
	t.Run("is durable and shares the file in the same way as package sqlite", func(t *testing.T) {
		s := open(t)
		mode, sync := s.Pragma(t, "journal_mode"), s.Pragma(t, "synchronous")
		if mode != "wal" || sync != "2" {
			t.Errorf("journal_mode %s, synchronous %s; want wal and 2, which is full", mode, sync)
		}
	})
	t.Run("returns a conflict without writing anything", func(t *testing.T) {
		s := open(t)
		if err := s.Append(t.Context(), stream, 0, []es.Record{event(1), event(2)}); err != nil {
			t.Fatal(err)
		}
		for _, events := range [][]es.Record{{event(8)}, {event(8), event(9)}} {
			if err := s.Append(t.Context(), stream, 1, events); !errors.Is(err, baseline.ErrConflict) {
				t.Errorf("append of %d events: %v, want %v", len(events), err, baseline.ErrConflict)
			}
		}
		n := 0
		if err := s.Scan(t.Context(), func(es.Record) { n++ }); n != 2 || err != nil {
			t.Errorf("%d records, err %v; want 2", n, err)
		}
	})
	t.Run("loses no command of callers that race", func(t *testing.T) {
		accounts := baseline.Accounts{Store: open(t)}
		if _, err := accounts.Execute(t.Context(), "1", account.Open{Owner: "Ada"}); err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for range 5 {
					if _, err := accounts.Execute(t.Context(), "1", account.Deposit{Amount: 1}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		callers.Wait()
		a, version, err := accounts.Load(t.Context(), "1")
		if a.Balance != 40 || version != 41 || err != nil {
			t.Errorf("balance %d at version %d, err %v; want 40 at 41", a.Balance, version, err)
		}
	})
}
