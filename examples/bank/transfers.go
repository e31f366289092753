package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/transfer"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/projection"
)

// unclaimed is the bank's account for money that can be neither delivered nor returned.
const unclaimed = "unclaimed"

// partitions is the number of shards of the transfer process.
const partitions = 16

// acceptance is how long a transfer waits for its acceptance: not as long as that of a real bank.
const acceptance = 250 * time.Millisecond

func (b *bank) process() transfer.Process {
	return transfer.Process{Transfers: b.transfers, Accounts: b.accounts, Unclaimed: unclaimed, Limit: acceptance}
}

// workers returns what runs in the background: the relay, the transfer process and the read models.
func (b *bank) workers(relay *kafka.Relay) []func(context.Context) error {
	tasks := []func(context.Context) error{
		relay.Run,
		func(ctx context.Context) error { return b.store.Project(ctx, accountList()) },
		func(ctx context.Context) error { return b.store.Project(ctx, statements()) },
	}
	for _, r := range []projection.Reaction{b.process().Reaction(partitions), b.process().Expiry()} {
		r.Lease = lease
		tasks = append(tasks, func(ctx context.Context) error { return b.store.React(ctx, r) })
	}
	return tasks
}

// transfer lets many customers request transfers between a few accounts concurrently.
func (b *bank) transfer(ctx context.Context, transfers int) error {
	begin := time.Now()
	ends := make(map[string]int)
	ended := newEnds(transfers)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ended.follow(ctx, b, ends) })
	customers, _ := errgroup.WithContext(ctx)
	customers.SetLimit(64)
	for n := range transfers {
		customers.Go(func() error {
			if _, err := b.transfers.Execute(ctx, b.transferID(n), b.ask(n)); err != nil {
				return err
			}
			if err := b.accept(ctx, n); err != nil {
				return err
			}
			return ended.wait(ctx, n)
		})
	}
	if err := errors.Join(customers.Wait(), group.Wait()); err != nil {
		return err
	}
	fmt.Printf("\n64 customers requested %d transfers in %v: %d were delivered, %d refused, %d rejected by the receiver and returned.\n",
		transfers, time.Since(begin).Round(time.Millisecond), ends["brought"], ends["refused"], ends["returned"])
	return nil
}

// settled waits until no transfer is in flight, including those of earlier runs, and returns the head of the log.
func (b *bank) settled(ctx context.Context) (es.Position, error) {
	for {
		head, err := es.Head(ctx, b.store)
		if err != nil {
			return 0, err
		}
		for _, name := range []string{b.process().Reaction(partitions).Name, b.process().Expiry().Name} { // which shows what waits once it is there
			if err := b.store.WaitFor(ctx, name, head); err != nil {
				return 0, err
			}
		}
		waiting, err := timers(ctx, b.store)
		if err != nil {
			return 0, err
		}
		if end, err := es.Head(ctx, b.store); err != nil || end == head && waiting == 0 { // the process has appended nothing since
			return end, err
		}
	}
}

// timers returns how many transfers may wait for their acceptance.
func timers(ctx context.Context, store projection.Admin) (n int, err error) {
	all, err := store.Status(ctx)
	for _, s := range all {
		n += s.Waiting
	}
	return n, err
}

func (b *bank) transferID(n int) string { return fmt.Sprintf("%d-%d", b.run, n) }

// ask returns a random transfer. Some go to the closed account of Zoe.
func (b *bank) ask(n int) transfer.Ask {
	from, to := rand.N(len(owners)), rand.N(len(owners)-1)
	if to >= from {
		to++
	}
	a := transfer.Ask{From: b.id(owners[from]), To: b.id(owners[to]), Amount: 1 + rand.Int64N(40_00)}
	if n%50 == 7 {
		a.To = b.id("zoe")
	}
	a.Acceptance = n%50 == 11
	return a
}

// accept tries to accept every other transfer that needs it. It may come too early or too late, and then the money is returned.
func (b *bank) accept(ctx context.Context, n int) error {
	if n%100 != 11 {
		return nil
	}
	_, err := b.transfers.Execute(ctx, b.transferID(n), transfer.Accept{})
	var refused *es.InvariantError
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// ends has a channel for each transfer, which is closed when the transfer ends.
type ends []chan struct{}

func newEnds(n int) ends {
	e := make(ends, n)
	for i := range e {
		e[i] = make(chan struct{})
	}
	return e
}

// follow follows the log until all transfers of this run have ended, and counts the outcomes.
func (e ends) follow(ctx context.Context, b *bank, how map[string]int) error {
	numbers := make(map[string]int, len(e))
	for n := range e {
		numbers[b.transferID(n)] = n
	}
	if len(e) == 0 {
		return nil
	}
	for r, err := range es.Follow(ctx, b.store, b.run, es.Filter{Types: []string{"brought", "refused", "returned"}}) {
		if err != nil {
			return err
		}
		n, ours := numbers[r.Stream.ID]
		if !ours {
			continue
		}
		how[r.Type]++
		close(e[n])
		if delete(numbers, r.Stream.ID); len(numbers) == 0 {
			break
		}
	}
	return nil
}

func (e ends) wait(ctx context.Context, n int) error {
	select {
	case <-e[n]:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
