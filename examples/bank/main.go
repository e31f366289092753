// Bank shows all parts of the toolkit in one program. Accounts have rules that are pure functions (package account). Transfers between them
// are carried out by a process that reacts to events (package transfer). Projections build read models in SQL, and a relay publishes
// the events to Kafka. At the end, an audit checks that no money was created or lost.
//
//	go run ./examples/bank                       a SQLite file in a temporary folder
//	go run ./examples/bank -store bank.db        a SQLite file that stays; a second run continues with it
//	go run ./examples/bank -store mem:           in memory
//	go run ./examples/bank -store postgres://user@host/database
//	go run ./examples/bank -kafka localhost:9092 publish to a cluster instead of a broker in the program; see package notify
//	go run ./examples/bank -schema               print an AsyncAPI document of the events that are published
//	go run ./examples/bank -check -store bank.db decode the newest events of each type
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/bank/transfer"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/stores"
)

func main() {
	log.SetFlags(0)
	store := flag.String("store", "", stores.Usage+" (default a SQLite file in a temporary folder)")
	transfers := flag.Int("transfers", 500, "the number of transfers")
	brokers := flag.String("kafka", "", "`addresses` of brokers of a cluster to publish to (default a broker in this program)")
	printSchemas := flag.Bool("schema", false, "print an AsyncAPI document of the events, and nothing else")
	checkStore := flag.Bool("check", false, "decode the newest events of each type in the store, and nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch {
	case *printSchemas:
		err = schemas(os.Stdout)
	case *checkStore:
		err = check(ctx, os.Stdout, *store)
	default:
		err = run(ctx, *store, *transfers, *brokers)
	}
	if err != nil {
		log.Fatal("bank: ", err)
	}
}

func run(ctx context.Context, where string, transfers int, brokers string) (err error) {
	if transfers < 1 {
		return fmt.Errorf("-transfers %d: give 1 or more", transfers)
	}
	if where == "" {
		dir, err := os.MkdirTemp("", "bank")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		where = filepath.Join(dir, "bank.db")
	}
	store, err := stores.Config{Logger: slog.Default()}.Open(ctx, where) // it says what it waits for
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	published, err := publish(store, brokers)
	if err != nil {
		return err
	}
	defer published.close()
	b, err := newBank(ctx, store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	fmt.Printf("The events are stored in %s, which has %d so far.\n\n", where, b.run)
	for _, step := range []func(context.Context) error{b.open, b.refusal, b.retry, b.history, b.atOnce} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	done, finish := context.WithCancel(ctx)
	defer finish()
	err = es.Run(done, append(b.workers(published.relay), func(ctx context.Context) error {
		defer finish() // ends the workers
		if err := b.transfer(ctx, transfers); err != nil {
			return err
		}
		if err := b.show(ctx); err != nil {
			return err
		}
		if err := audit(ctx, store); err != nil {
			return err
		}
		return published.show(ctx, store)
	})...)
	return cmp.Or(err, ctx.Err())
}

// bank is one run of the program. The IDs of its accounts contain the position at which the run began, so that the program can run again on the same store.
type bank struct {
	store     projection.Database
	accounts  *es.Repo[account.Account, account.Command, account.Event]
	transfers *es.Repo[transfer.Transfer, transfer.Command, transfer.Event]
	run       es.Position
}

func newBank(ctx context.Context, store projection.Database) (*bank, error) {
	run, err := es.Head(ctx, store)
	return &bank{
		store:     store,
		accounts:  es.NewRepo(store, "account", account.Rules{}, account.Codec),
		transfers: es.NewRepo(store, transfer.Kind, transfer.Rules{}, transfer.Codec),
		run:       run,
	}, err
}

func (b *bank) close() error {
	return errors.Join(b.transfers.Close(context.Background()), b.accounts.Close(context.Background()))
}

var owners = []string{"ann", "bob", "cem", "dee", "eve", "fay", "gus", "hal"}

func (b *bank) id(owner string) string { return fmt.Sprintf("%s-%d", owner, b.run) }

func (b *bank) open(ctx context.Context) error {
	if _, err := b.accounts.Execute(ctx, unclaimed, account.Open{Owner: "the bank"}, es.CommandID("open")); err != nil {
		return err
	}
	for _, owner := range owners {
		if _, err := b.accounts.Execute(ctx, b.id(owner), account.Open{Owner: owner}); err != nil {
			return err
		}
		if _, err := b.accounts.Execute(ctx, b.id(owner), account.Deposit{Amount: 100_00}); err != nil {
			return err
		}
	}
	fmt.Printf("%d people opened an account with 100.00 each.\n", len(owners))
	for _, command := range []account.Command{account.Open{Owner: "zoe"}, account.Close{}} {
		if _, err := b.accounts.Execute(ctx, b.id("zoe"), command); err != nil {
			return err
		}
	}
	fmt.Println("Zoe opened one and closed it again.")
	return nil
}

// refusal sends a command that breaks a rule. It is refused with a code, and nothing is written.
func (b *bank) refusal(ctx context.Context) error {
	_, err := b.accounts.Execute(ctx, b.id("ann"), account.Withdraw{Amount: 1_000_000_00})
	var refused *es.InvariantError
	if !errors.As(err, &refused) {
		return fmt.Errorf("a million was paid out: %w", err)
	}
	fmt.Printf("Ann asks for a million: refused, %s (%s).\n", refused.Code, refused.Message)
	return nil
}

// retry sends a command with an ID several times. It is applied once.
func (b *bank) retry(ctx context.Context) error {
	var result es.Result[account.Account, account.Event]
	for range 3 {
		var err error
		if result, err = b.accounts.Execute(ctx, b.id("bob"), account.Deposit{Amount: 50_00}, es.CommandID("salary-november")); err != nil {
			return err
		}
	}
	fmt.Printf("Bob's salary of 50.00 is sent three times with one command ID: the balance is %s, at version %d.\n", euros(result.State.Balance), result.Version)
	return nil
}

// history loads earlier states of an account.
func (b *bank) history(ctx context.Context) error {
	for version := es.Version(1); version <= 3; version++ {
		at, err := b.accounts.LoadAt(ctx, b.id("bob"), version)
		a := at.State
		if err != nil {
			return err
		}
		fmt.Printf("    Bob's balance at version %d: %s\n", version, euros(a.Balance))
	}
	return nil
}

// atOnce moves money between two accounts in one append, several times with one ID.
func (b *bank) atOnce(ctx context.Context) error {
	for n := range 3 {
		repeated, err := transfer.Now(ctx, b.accounts, fmt.Sprintf("rent-%d", b.run), b.id("ann"), b.id("bob"), 30_00)
		if err != nil || repeated != (n > 0) {
			return fmt.Errorf("transfer at once, attempt %d, repeated %t: %w", n+1, repeated, err)
		}
	}
	fmt.Println("Ann pays Bob 30.00 at once, both accounts or neither; sent three times, it takes effect once.")
	return nil
}
