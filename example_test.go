package es_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// must is for steps that are not the subject of an example.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ExampleNewRepo() {
	ctx := context.Background()
	accounts := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec)
	defer accounts.Close(context.Background())

	opened, err := accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"})
	fmt.Println(opened.Version, opened.Events, err)

	paid, err := accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00})
	fmt.Println(paid.Version, paid.State.Balance, err)
	// Output:
	// 1 [{Ann}] <nil>
	// 2 5000 <nil>
}

// Execute returns a refusal by the rules unchanged. Programs act on its code.
func ExampleRepo_Execute() {
	ctx := context.Background()
	accounts := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))
	must(accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}))

	_, err := accounts.Execute(ctx, "ann", account.Withdraw{Amount: 70_00})
	var refusal *es.InvariantError
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Code)
		fmt.Println(refusal.Message)
	}
	// Output:
	// INSUFFICIENT_FUNDS
	// the balance is 5000 cents, 7000 requested
}

func ExampleRepo_Load() {
	ctx := context.Background()
	accounts := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))

	ann, err := accounts.Load(ctx, "ann")
	fmt.Println(ann.State.Owner, ann.State.Open, ann.Version, err)

	// An aggregate without events has the zero state; that is not an error.
	bob, err := accounts.Load(ctx, "bob")
	fmt.Println(bob.State.Open, bob.Version, err)
	// Output:
	// Ann true 1 <nil>
	// false 0 <nil>
}

func ExampleRepo_LoadAt() {
	ctx := context.Background()
	accounts := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))
	must(accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}))
	must(accounts.Execute(ctx, "ann", account.Withdraw{Amount: 20_00}))

	for version := es.Version(1); version <= 4; version++ {
		at, err := accounts.LoadAt(ctx, "ann", version)
		fmt.Println(version, at.State.Balance, err)
	}
	// Output:
	// 1 0 <nil>
	// 2 5000 <nil>
	// 3 3000 <nil>
	// 4 0 es: invalid: account/ann has no version 4: its version is 3
}

// A command that is sent twice with one id takes effect once and has the same result both times.
func ExampleCommandID() {
	ctx := context.Background()
	accounts := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))

	for range 2 {
		result, err := accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}, es.CommandID("salary-2026-11"))
		fmt.Println(result.Version, result.State.Balance, result.Events, err)
	}
	// Output:
	// 2 5000 [{5000}] <nil>
	// 2 5000 [{5000}] <nil>
}

// A person decided on version 1. The account has changed since.
func ExampleExpectVersion() {
	ctx := context.Background()
	accounts := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))
	seen, _ := accounts.Load(ctx, "ann")
	must(accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00})) // by another caller

	_, err := accounts.Execute(ctx, "ann", account.Withdraw{Amount: 20_00}, es.ExpectVersion(seen.Version))
	var conflict *es.ConflictError
	if errors.As(err, &conflict) {
		fmt.Println(conflict)
	}
	// Output: conflict: stream account/ann is not at version 1
}

func ExampleMeta() {
	ctx := context.Background()
	log := new(es.Mem)
	accounts := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}, es.Meta(map[string]string{"user": "clerk-7"})))

	for record, err := range log.All(ctx, 0, es.Filter{}) {
		fmt.Println(record.Type, record.Meta, err)
	}
	// Output: opened map[user:clerk-7] <nil>
}

// CausedBy links the events of a command to the event that caused it.
func ExampleCausedBy() {
	ctx := context.Background()
	log := new(es.Mem)
	accounts := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "bob", account.Open{Owner: "Bob"}))
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}, es.Meta(map[string]string{es.MetaCorrelation: "visit-12"})))

	for record, err := range log.All(ctx, 0, es.Filter{Types: []string{"opened"}}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		must(accounts.Execute(ctx, record.Stream.ID, account.Deposit{Amount: 5_00}, es.CommandID("welcome"), es.CausedBy(record)))
	}

	for record, err := range log.All(ctx, 0, es.Filter{Types: []string{"deposited"}}) {
		fmt.Println(record.Meta[es.MetaCausation], record.Meta[es.MetaCorrelation], err)
	}
	// Output:
	// account/bob/1 account/bob/1 <nil>
	// account/ann/1 visit-12 <nil>
}

// Decide refuses with an invariant. Its code is stable and for programs, its message is for people.
func ExampleInvariant() {
	err := es.Invariant("ACCOUNT_NOT_EMPTY", "%d cents are still there", 300)

	var refusal *es.InvariantError
	fmt.Println(errors.As(err, &refusal), refusal.Code)
	fmt.Println(err)
	// Output:
	// true ACCOUNT_NOT_EMPTY
	// ACCOUNT_NOT_EMPTY: 300 cents are still there
}

func ExampleJSON() {
	type event any
	type opened struct{ Owner string }
	type deposited struct{ Cents int64 }
	codec := es.JSON(map[string]event{
		"opened":    opened{},
		"deposited": deposited{},
	})

	record, err := codec.Encode(deposited{Cents: 50_00})
	fmt.Printf("%s %s %v\n", record.Type, record.Data, err)

	back, err := codec.Decode(record)
	fmt.Println(back == deposited{Cents: 50_00}, err)
	// Output:
	// deposited {"Cents":5000} <nil>
	// true <nil>
}

// Amounts were once whole euros. Old events are read as events of today; the stored data does not change.
func ExampleCodec_Upcast() {
	type event any
	type deposited struct{ Cents int64 }
	type inEuros struct{ Euros int64 }
	codec := es.JSON(map[string]event{"deposited.v2": deposited{}}).
		Upcast("deposited", es.From(func(old inEuros) event { return deposited{Cents: 100 * old.Euros} }))

	event1, err := codec.Decode(es.Record{Type: "deposited", Data: []byte(`{"Euros": 7}`)})
	fmt.Printf("%+v %v\n", event1, err)
	event2, err := codec.Decode(es.Record{Type: "deposited.v2", Data: []byte(`{"Cents": 750}`)})
	fmt.Printf("%+v %v\n", event2, err)
	// Output:
	// {Cents:700} <nil>
	// {Cents:750} <nil>
}

// A retired event keeps its version and changes no state.
func ExampleCodec_Retire() {
	ctx := context.Background()
	store := new(es.Mem)
	stream := es.Stream{Kind: "account", ID: "ann"}
	must(store.Append(ctx, es.Append{Stream: stream, Events: []es.Record{
		{Type: "opened", Data: []byte(`{"Owner": "Ann"}`)},
		{Type: "statement-printed"},
		{Type: "deposited", Data: []byte(`{"Amount": 5000}`)},
	}}))

	codec := es.JSON(map[string]account.Event{
		"opened":    account.Opened{},
		"deposited": account.Deposited{},
	}).Retire("statement-printed")
	ann, err := es.NewRepo(store, "account", account.Rules{}, codec).Load(ctx, "ann")
	fmt.Println(ann.State.Balance, ann.Version, err)
	// Output: 5000 3 <nil>
}

// With snapshots a load reads only the end of a long stream. They are saved in the background; Close waits for them.
func ExampleSnapshots() {
	ctx := context.Background()
	log := new(es.Mem)
	accounts := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	accounts.Snapshots = log // the stores of packages sqlite and postgres keep them too
	accounts.SnapshotEvery = 3
	accounts.SnapshotSchema = 1 // raise it whenever Account or what Evolve does changes
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))
	must(accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}))
	must(accounts.Execute(ctx, "ann", account.Withdraw{Amount: 20_00}))
	accounts.Close(context.Background())

	snapshot, err := log.LoadSnapshot(ctx, es.Stream{Kind: "account", ID: "ann"})
	fmt.Println(snapshot.Stream, snapshot.Version, snapshot.Schema, err)
	// Output: account/ann 3 1 <nil>
}

// Follow waits for new records until its context ends. A reader that keeps the last position can continue from there.
func ExampleFollow() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := new(es.Mem)
	accounts := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))

	for record, err := range es.Follow(ctx, log, 0, es.Filter{Kinds: []string{"account"}}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(record.Position, record.ID(), record.Type)
		switch record.Type {
		case "opened":
			must(accounts.Execute(ctx, "ann", account.Close{}))
		case "closed":
			return
		}
	}
	// Output:
	// 1 account/ann/1 opened
	// 2 account/ann/2 closed
}

func ExampleHead() {
	ctx := context.Background()
	log := new(es.Mem)
	fmt.Println(es.Head(ctx, log))

	accounts := es.NewRepo(log, "account", account.Rules{}, account.Codec)
	must(accounts.Execute(ctx, "ann", account.Open{Owner: "Ann"}))
	must(accounts.Execute(ctx, "bob", account.Open{Owner: "Bob"}))
	fmt.Println(es.Head(ctx, log))
	// Output:
	// 0 <nil>
	// 2 <nil>
}

func ExampleStream() {
	stream := es.Stream{Kind: "account", ID: "ann"}
	fmt.Println(stream)
	fmt.Println(es.Record{Stream: stream, Version: 7}.ID())
	fmt.Println(es.Stream{Kind: "account"}.Check())
	// Output:
	// account/ann
	// account/ann/7
	// es: invalid: id of stream "account/" is empty: give it a name
}

func ExampleParseStream() {
	stream, err := es.ParseStream("account/branch/9/ann")
	fmt.Printf("%q %q %v\n", stream.Kind, stream.ID, err)

	_, err = es.ParseStream("account")
	fmt.Println(err)
	// Output:
	// "account" "branch/9/ann" <nil>
	// es: invalid: stream name "account" has no "/": use kind/id, such as account/42
}

// One call of Append writes to several streams, everything or nothing.
func ExampleStore() {
	ctx := context.Background()
	var store es.Store = new(es.Mem)
	ann, bob := es.Stream{Kind: "account", ID: "ann"}, es.Stream{Kind: "account", ID: "bob"}
	out := es.Record{Type: "withdrawn", Data: []byte(`{"Amount": 2000}`)}
	in := es.Record{Type: "deposited", Data: []byte(`{"Amount": 2000}`)}

	// Bob's account is not as expected: nothing is written to Ann's either.
	_, err := store.Append(ctx,
		es.Append{Stream: ann, Expected: 0, Events: []es.Record{out}},
		es.Append{Stream: bob, Expected: 4, Events: []es.Record{in}})
	fmt.Println(err)

	last, err := store.Append(ctx,
		es.Append{Stream: ann, Expected: 0, Events: []es.Record{out}},
		es.Append{Stream: bob, Expected: 0, Events: []es.Record{in}})
	fmt.Println(last, err)

	for _, stream := range []es.Stream{ann, bob} {
		for record, err := range store.Read(ctx, stream, 0) {
			fmt.Println(record.Position, record.ID(), record.Type, err)
		}
	}
	// Output:
	// conflict: stream account/bob is not at version 4
	// 2 <nil>
	// 1 account/ann/1 withdrawn <nil>
	// 2 account/bob/1 deposited <nil>
}
