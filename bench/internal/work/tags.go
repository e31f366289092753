package work

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/examples/bank/account"
)

// A Guarded append writes an event with tags unless a record after a position has one of the tags of a query. It returns the position of the event.
type Guarded func(ctx context.Context, stream es.Stream, version es.Version, query []string, after es.Position, event es.Record) (es.Position, error)

// Unless returns the Guarded of a store, with a filter for each tag of the query.
func Unless(store es.Store) Guarded {
	return func(ctx context.Context, stream es.Stream, version es.Version, query []string, after es.Position, event es.Record) (es.Position, error) {
		c := es.Condition{After: after, Match: make([]es.Filter, len(query))}
		for i := range query {
			c.Match[i].Tags = query[i : i+1]
		}
		return store.Append(ctx, es.Append{Stream: stream, Expected: version - 1, Unless: c, Events: []es.Record{event}})
	}
}

// twoTags returns two tags for a stream.
func twoTags(stream es.Stream) []string {
	return []string{"course:" + stream.ID, "student:" + stream.ID}
}

// Conditions returns callers that append events with two tags each, under a condition on these tags and the position of the caller's last event that
// has them. The tags are those of the caller and change with its stream. So every append is accepted.
func Conditions(name string, to Guarded, callers, bytes int) measure.Side {
	writers, events := NewWriters(callers), Events(1, bytes)
	last := make([]es.Position, callers)
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, caller int) (err error) {
		stream, after := writers[caller].Next(1)
		event := events[0]
		event.Tags = twoTags(stream)
		if after == 0 {
			last[caller] = 0
		}
		last[caller], err = to(ctx, stream, after+1, event.Tags, last[caller], event)
		return err
	}}
}

// Tagged returns callers that append events with two tags each, without a condition.
func Tagged(name string, store es.Store, callers, bytes int) measure.Side {
	writers, events := NewWriters(callers), Events(1, bytes)
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, caller int) error {
		stream, after := writers[caller].Next(1)
		event := events[0]
		event.Tags = twoTags(stream)
		_, err := store.Append(ctx, es.Append{Stream: stream, Expected: after, Events: []es.Record{event}})
		return err
	}}
}

// frequent is the tag of a tenth of the events that FillTagged writes, the first ones.
const frequent = "frequent"

// FillTagged writes events with a tag each. The first tenth has the same one.
func FillTagged(ctx context.Context, store es.Store, records, bytes int) error {
	const per = 1000
	var next atomic.Int64
	fill := func(from, to int) error {
		side := measure.Side{Name: "fill", Callers: 16, Op: func(ctx context.Context, _ int) error {
			n := from + int(next.Add(1)) - 1
			events := Events(1, bytes)
			batch := make([]es.Record, per)
			for i := range batch {
				batch[i] = events[0]
				batch[i].Tags = []string{frequent}
				if from > 0 {
					batch[i].Tags = []string{fmt.Sprint("stored:", n*per+i)}
				}
			}
			_, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "stored-" + scatter(uint64(n))}, Events: batch})
			return err
		}}
		next.Store(0)
		_, err := side.Times(ctx, to-from)
		return err
	}
	batches := max(records/per, 10)
	if err := fill(0, batches/10); err != nil {
		return err
	}
	return fill(batches/10, batches)
}

// ConditionsOnLog returns callers that append under a condition on the frequent tag of FillTagged and on two tags that no event has yet. Every second
// position of a condition is the head that the caller knows, and the others are 10,000 before it, but not before the last event with the frequent tag.
func ConditionsOnLog(name string, to Guarded, callers, records, bytes int) measure.Side {
	writers, events := NewWriters(callers), Events(1, bytes)
	first := es.Position(max(records/1000, 10) / 10 * 1000)
	last, calls := make([]es.Position, callers), make([]int, callers)
	for i := range last {
		last[i] = es.Position(max(records/1000, 10) * 1000)
	}
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, caller int) (err error) {
		stream, version := writers[caller].Next(1)
		event := events[0]
		event.Tags = twoTags(es.Stream{ID: fmt.Sprint(stream.ID, version)})
		after := last[caller]
		if calls[caller]++; calls[caller]%2 == 0 {
			after = max(first, after-10_000)
		}
		last[caller], err = to(ctx, stream, version+1, append([]string{frequent}, event.Tags...), after, event)
		return err
	}}
}

// A booking is an event on the hot boundary.
type booking struct{ Note string }

type bookings struct{}

func (bookings) Decide(int, booking) ([]booking, error) { return []booking{{"one more"}}, nil }
func (bookings) Evolve(n int, _ booking) int            { return n + 1 }

var hotTags = []string{"course:hot", "student:hot"}

// Bookings returns callers that decide on one boundary of two tags, each decision on the events of all others.
func Bookings(log es.Log, callers int) measure.Side {
	codec := es.JSON(map[string]booking{"booked": {}}).Tag(func(booking) []string { return hotTags })
	d := es.NewDecisions(log, bookings{}, codec, func(booking) es.Boundary[int] {
		return es.Boundary[int]{Query: []es.Filter{{Tags: hotTags[:1]}, {Tags: hotTags[1:]}}, Stream: es.Stream{Kind: "booking", ID: "hot"}}
	})
	d.Retries, d.Limit = 1_000_000, -1
	return measure.Side{Name: "Decisions", Callers: callers, Op: func(ctx context.Context, _ int) error {
		_, err := d.Execute(ctx, booking{})
		return err
	}}
}

// PlainBookings is [Bookings] with the Append of a baseline, which decides in its transaction.
func PlainBookings(to func(ctx context.Context, query []string, after es.Position, event es.Record) (es.Position, error), callers int) measure.Side {
	event := es.Record{Type: "booked", Data: []byte(`{"Note":"one more"}`), Tags: hotTags}
	return measure.Side{Name: "textbook", Callers: callers, Op: func(ctx context.Context, _ int) error {
		_, err := to(ctx, hotTags, -1, event)
		return err
	}}
}

// Transfers returns callers that each move an amount between two of some accounts, chosen at random.
func Transfers(name string, callers, accounts int, transfer func(ctx context.Context, from, to string) error) measure.Side {
	return measure.Side{Name: name, Callers: callers, Op: func(ctx context.Context, _ int) error {
		from := rand.IntN(accounts)
		to := (from + 1 + rand.IntN(accounts-1)) % accounts
		return transfer(ctx, AccountID(from), AccountID(to))
	}}
}

// OpenAccounts opens accounts and pays an amount into each.
func OpenAccounts(ctx context.Context, repo *Repo, accounts int, amount int64) error {
	var next atomic.Int64
	side := measure.Side{Name: "open", Callers: 64, Op: func(ctx context.Context, _ int) error {
		id := AccountID(int(next.Add(1)) - 1)
		if _, err := repo.Execute(ctx, id, account.Open{Owner: "Ada"}); err != nil {
			return err
		}
		_, err := repo.Execute(ctx, id, account.Deposit{Amount: amount})
		return err
	}}
	_, err := side.Times(ctx, accounts)
	return err
}

// Transact returns a transfer by es.Transact.
func Transact(repo *Repo, amount int64) func(ctx context.Context, from, to string) error {
	return func(ctx context.Context, from, to string) error {
		_, err := es.Transact(ctx, func(tx *es.Tx) error {
			if _, err := repo.ExecuteTx(ctx, tx, from, account.Withdraw{Amount: amount}); err != nil {
				return err
			}
			_, err := repo.ExecuteTx(ctx, tx, to, account.Deposit{Amount: amount})
			return err
		})
		return err
	}
}
