package es_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// grown is the codec of a bank whose early events had other names, counted in euros, and included printed statements.
func grown() *es.Codec[account.Event] {
	type inEuros struct{ Euros int64 }
	return es.JSON(map[string]account.Event{
		"opened":       account.Opened{},
		"deposited.v2": account.Deposited{},
		"withdrawn":    account.Withdrawn{},
		"closed":       account.Closed{},
	}).
		Rename("account-opened", "opened").
		Upcast("deposited", es.From(func(old inEuros) account.Event { return account.Deposited{Amount: 100 * old.Euros} })).
		Upcast("adjusted", func(r es.Record, _ func([]byte, any) error) (account.Event, error) {
			if string(r.Data) == "0" {
				return nil, es.ErrRetired // most of them meant nothing
			}
			return account.Withdrawn{Amount: 1}, nil
		}).
		Retire("statement-printed", "card-printed")
}

func TestOldEventsAreUpcast(t *testing.T) {
	store := newSpy()
	stream := es.Stream{Kind: "account", ID: "1"}
	past := func(command string, events ...es.Record) {
		t.Helper()
		if _, err := store.Append(t.Context(), es.Append{Stream: stream, Expected: es.AnyVersion, Events: events, Command: command}); err != nil {
			t.Fatal(err)
		}
	}
	past("", es.Record{Type: "account-opened", Data: []byte(`{"Owner":"Ada"}`)})                             // 1
	past("", es.Record{Type: "deposited", Data: []byte(`{"Euros":7}`)}, es.Record{Type: "card-printed"})     // 2, 3
	past("", es.Record{Type: "adjusted", Data: []byte(`0`)}, es.Record{Type: "adjusted", Data: []byte(`1`)}) // 4, 5
	past("c", es.Record{Type: "statement-printed"}, es.Record{Type: "deposited.v2", Data: []byte(`{"Amount":5}`)}, es.Record{Type: "statement-printed", Data: []byte("not JSON")})
	repo := es.NewRepo(store, "account", account.Rules{}, grown())

	for version, want := range []int64{0, 0, 700, 700, 700, 699, 699, 704, 704} {
		if at, err := repo.LoadAt(t.Context(), "1", es.Version(version)); err != nil || at.State.Balance != want {
			t.Errorf("at version %d: %+v, %v; want %d", version, at.State, err, want)
		}
	}
	if at, err := repo.Load(t.Context(), "1"); err != nil || at.Version != 8 || at.State != (account.Account{Owner: "Ada", Open: true, Balance: 704}) {
		t.Errorf("loaded %+v at version %d, %v; the last event is retired and has a version", at.State, at.Version, err)
	}
	t.Run("what a command led to is what still counts of it", func(t *testing.T) {
		want := bankResult{Versioned: es.Versioned[account.Account]{State: account.Account{Owner: "Ada", Open: true, Balance: 704}, Version: 8, Position: 8}, Events: []account.Event{account.Deposited{Amount: 5}}, Repeated: true}
		if diff := cmp.Diff(want, execute(t, repo, "1", account.Deposit{Amount: 5}, es.CommandID("c"))); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("also from a snapshot that stands on a retired event", func(t *testing.T) {
		shelf := new(shelf)
		for range 2 {
			repo := es.NewRepo(store, "account", account.Rules{}, grown())
			repo.Snapshots, repo.SnapshotEvery = shelf, 8
			store.take()
			if at, err := repo.Load(t.Context(), "1"); err != nil || at.Version != 8 || at.State.Balance != 704 {
				t.Errorf("loaded %+v at version %d, %v", at.State, at.Version, err)
			}
			if err := repo.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
		if got := store.take(); got.Records != 1 {
			t.Errorf("the second load read %d records, not the one at which the snapshot stands", got.Records)
		}
	})
	t.Run("new events have current names", func(t *testing.T) {
		result := execute(t, repo, "1", account.Deposit{Amount: 1})
		if last := stored(t, store, stream)[8]; result.Version != 9 || last.Type != "deposited.v2" {
			t.Errorf("%+v was stored as %q", result, last.Type)
		}
	})
}

func TestUpcasterErrorNamesTheRecord(t *testing.T) {
	_, err := grown().Decode(es.Record{Stream: es.Stream{Kind: "account", ID: "1"}, Version: 3, Type: "deposited", Data: []byte(`{"Euros":"many"}`)})
	if err == nil || !strings.Contains(err.Error(), "account/1/3") || !strings.Contains(err.Error(), `"deposited"`) {
		t.Errorf("%v; want account/1/3 and its type", err)
	}
}

func TestDecodeReturnsErrRetiredUnwrapped(t *testing.T) {
	event, err := grown().Decode(es.Record{Type: "card-printed"})
	if event != nil || err != es.ErrRetired {
		t.Errorf("%v, %v; want ErrRetired, bare", event, err)
	}
}

func TestRetiredEventsCannotBeEncoded(t *testing.T) {
	codec := es.JSON(map[string]happening{"plain": plain{}}).Retire("other")
	_, err := codec.Encode(other{})
	var unknown *es.UnknownEventError
	if !errors.As(err, &unknown) {
		t.Errorf("%v; want an UnknownEventError", err)
	}
}

func TestStoredNamesAreUnique(t *testing.T) {
	up := func(es.Record, func([]byte, any) error) (account.Event, error) { return nil, nil }
	for _, test := range []struct {
		name string
		add  func(c *es.Codec[account.Event])
		says []string
	}{
		{"Rename to a name that is not there", func(c *es.Codec[account.Event]) { c.Rename("old", "new") }, []string{`Rename("old", "new")`, `no event "new"`}},
		{"Rename to a retired name", func(c *es.Codec[account.Event]) { c.Rename("old", "card-printed") }, []string{`no event "card-printed"`}},
		{"Rename of a name in use", func(c *es.Codec[account.Event]) { c.Rename("closed", "opened") }, []string{`"closed"`, "twice"}},
		{"Rename twice", func(c *es.Codec[account.Event]) { c.Rename("account-opened", "opened") }, []string{`"account-opened"`, "twice"}},
		{"Upcast of a name in use", func(c *es.Codec[account.Event]) { c.Upcast("opened", up) }, []string{`"opened"`, "twice"}},
		{"Upcast of a retired name", func(c *es.Codec[account.Event]) { c.Upcast("card-printed", up) }, []string{`"card-printed"`, "twice"}},
		{"Upcast twice", func(c *es.Codec[account.Event]) { c.Upcast("deposited", up) }, []string{`"deposited"`, "twice"}},
		{"Upcast of no name", func(c *es.Codec[account.Event]) { c.Upcast("", up) }, []string{"is empty"}},
		{"Retire of a name in use", func(c *es.Codec[account.Event]) { c.Retire("fine", "opened") }, []string{`"opened"`, "twice"}},
		{"Retire of an upcast name", func(c *es.Codec[account.Event]) { c.Retire("deposited") }, []string{`"deposited"`, "twice"}},
		{"Retire twice", func(c *es.Codec[account.Event]) { c.Retire("card-printed") }, []string{`"card-printed"`, "twice"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			said := panicOf(func() { test.add(grown()) })
			for _, want := range append(test.says, "es: codec: ") {
				if !strings.Contains(said, want) {
					t.Errorf("it panicked with %q, which does not say %q", said, want)
				}
			}
		})
	}
}
