// Bank is the whole story in one program: accounts whose rules are pure functions (package account), run on a store that keeps
// every event, and an audit at the end that no cent was made or lost.
//
//	go run ./examples/bank                       a SQLite file in a temporary folder
//	go run ./examples/bank -store bank.db        a SQLite file that stays; run it again and it goes on
//	go run ./examples/bank -store mem:           in memory
//	go run ./examples/bank -store postgres://user@host/database
//	go run ./examples/bank -kafka localhost:9092 publish to that cluster, and not to a broker within the program; see package notify
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/internal/open"
)

func main() {
	log.SetFlags(0)
	store := flag.String("store", "", open.Usage+" (default a SQLite file in a temporary folder)")
	transfers := flag.Int("transfers", 2000, "how many transfers are tried")
	brokers := flag.String("kafka", "", "the addresses of some brokers of a cluster to publish to (default a broker within this program)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *store, *transfers, *brokers); err != nil {
		log.Fatal("bank: ", err)
	}
}

func run(ctx context.Context, where string, transfers int, brokers string) (err error) {
	if where == "" {
		dir, err := os.MkdirTemp("", "bank")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		where = filepath.Join(dir, "bank.db")
	}
	store, closeStore, err := open.Log(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()

	published, err := publish(ctx, store, brokers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, published.close()) }()

	b := &bank{accounts: es.NewRepo(store, "account", account.Rules{}, account.Codec)}
	defer func() { err = errors.Join(err, b.accounts.Close()) }()
	if b.run, err = es.Head(ctx, store); err != nil {
		return err
	}
	fmt.Printf("The events are kept in %s, which has %d so far.\n\n", where, b.run)
	for _, step := range []func(context.Context) error{b.open, b.refusal, b.retry, b.history} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := b.transfer(ctx, transfers); err != nil {
		return err
	}
	if err := audit(ctx, store); err != nil {
		return err
	}
	return published.show(ctx, store)
}

// A bank is one run of the program: its accounts carry the position at which it began, so that it can run again on the same store.
type bank struct {
	accounts *es.Repo[account.Account, account.Command, account.Event]
	run      es.Position
}

var owners = []string{"ann", "bob", "cem", "dee", "eve", "fay", "gus", "hal"}

func (b *bank) id(owner string) string { return fmt.Sprintf("%s-%d", owner, b.run) }

func (b *bank) open(ctx context.Context) error {
	for _, owner := range owners {
		if _, err := b.accounts.Execute(ctx, b.id(owner), account.Open{Owner: owner}); err != nil {
			return err
		}
		if _, err := b.accounts.Execute(ctx, b.id(owner), account.Deposit{Amount: 100_00}); err != nil {
			return err
		}
	}
	fmt.Printf("%d people opened an account with 100.00 each.\n", len(owners))
	return nil
}

// A command that breaks a rule is refused with a code. Nothing is written.
func (b *bank) refusal(ctx context.Context) error {
	_, err := b.accounts.Execute(ctx, b.id("ann"), account.Withdraw{Amount: 1_000_000_00})
	var refused *es.InvariantError
	if !errors.As(err, &refused) {
		return fmt.Errorf("a million was paid out: %w", err)
	}
	fmt.Printf("Ann asks for a million: refused, %s (%s).\n", refused.Code, refused.Message)
	return nil
}

// A command with an identity takes effect once, however often it is sent.
func (b *bank) retry(ctx context.Context) error {
	var result es.Result[account.Account, account.Event]
	for range 3 {
		var err error
		if result, err = b.accounts.Execute(ctx, b.id("bob"), account.Deposit{Amount: 50_00}, es.CommandID("salary-november")); err != nil {
			return err
		}
	}
	fmt.Printf("Bob's salary of 50.00 is sent three times with one command id: he has %s, at version %d.\n", euros(result.State.Balance), result.Version)
	return nil
}

// Every state that ever was can be had again.
func (b *bank) history(ctx context.Context) error {
	for version := es.Version(1); version <= 3; version++ {
		a, err := b.accounts.LoadAt(ctx, b.id("bob"), version)
		if err != nil {
			return err
		}
		fmt.Printf("    Bob's balance at version %d: %s\n", version, euros(a.Balance))
	}
	return nil
}

// Many goroutines move money between the same few accounts at once.
func (b *bank) transfer(ctx context.Context, transfers int) error {
	var moved, refused atomic.Int64
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for n := range transfers {
		group.Go(func() error {
			from, to := rand.N(len(owners)), rand.N(len(owners)-1)
			if to >= from {
				to++
			}
			err := b.move(ctx, fmt.Sprintf("transfer-%d-%d", b.run, n), b.id(owners[from]), b.id(owners[to]), 1+rand.Int64N(40_00))
			var no *es.InvariantError
			if errors.As(err, &no) {
				refused.Add(1)
				return nil
			}
			moved.Add(1)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("\n64 goroutines tried %d transfers in %v: %d went through, %d were refused.\n", transfers, took.Round(time.Millisecond), moved.Load(), refused.Load())
	return nil
}

// move takes money from one account and brings it to another. Each half is a command with an identity, so that a program
// which does not know how far it came does it again from the beginning.
func (b *bank) move(ctx context.Context, id, from, to string, amount int64) error {
	meta := es.Meta(map[string]string{es.MetaCorrelation: id})
	if _, err := b.accounts.Execute(ctx, from, account.Withdraw{Amount: amount}, es.CommandID(id), meta); err != nil {
		return err
	}
	_, err := b.accounts.Execute(ctx, to, account.Deposit{Amount: amount}, es.CommandID(id), meta)
	return err
}
