package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

var errBroken = errors.New("no such customer")

// parking returns a consumer that parks a record at its first failure.
func parking(t testing.TB, b bank) *kafka.Consumer {
	c := consumer(t, b)
	c.OnError, c.Retries, c.Workers = es.Park, -1, 3
	return c
}

func deadLetters(b bank) *kafka.DeadLetters {
	return &kafka.DeadLetters{Cluster: kafka.Cluster{Config: b.config()}, Topic: b.topic, Group: b.Prefix + "-notify"}
}

// parked returns the parked messages and the ids of their records.
func parked(t testing.TB, b bank) (all []kafka.DeadLetter, ids []string) {
	t.Helper()
	for letter, err := range deadLetters(b).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, letter)
		ids = append(ids, letter.Record.ID())
	}
	return all, ids
}

// of divides records into those of a stream from a version on, and the others.
func of(records []es.Record, id string, from es.Version) (these, others []es.Record) {
	for _, r := range records {
		if r.Stream.ID == id && r.Version >= from {
			these = append(these, r)
		} else {
			others = append(others, r)
		}
	}
	return these, others
}

func failing(id string) func(es.Record) error {
	return func(r es.Record) error {
		if r.ID() == id {
			return errBroken
		}
		return nil
	}
}

func TestFailedRecordIsParkedWithItsKey(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(100, 5)
		bad, good := of(all, "a3", 4)
		c, got := parking(t, b), newCollector()
		got.fail = failing(bad[0].ID())
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "all records that are not parked", got.has(good))

		// The next owner of the partition knows what is parked.
		awaitParked(t, b, len(bad))
		_ = stop()
		c = parking(t, b)
		stop = start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		more := p.publish(20, 5)
		moreBad, moreGood := of(more, "a3", 4)
		got.await(t, "the new records", got.has(moreGood))
		bad = append(bad, moreBad...)
		letters := awaitParked(t, b, len(bad))
		insist(t, "the statistics", func() error {
			keys, aside := 0, int64(0)
			for _, s := range c.Stats() {
				keys, aside = keys+s.Parked, aside+s.PutAside
			}
			if keys != 1 || aside != int64(len(moreBad)) {
				return fmt.Errorf("%+v", c.Stats())
			}
			return nil
		})
		_ = stop()
		for i, letter := range letters {
			if letter.Record.ID() != bad[i].ID() || string(letter.Record.Data) != string(bad[i].Data) || letter.Key != "a3" || (letter.Error != "") != (i == 0) || letter.At.IsZero() {
				t.Errorf("letter %d is %+v, of %s", i, letter, bad[i].ID())
			}
		}
		if letters[0].Error != errBroken.Error() || letters[0].Attempts != 1 {
			t.Errorf("the first letter has the error %q after %d attempts", letters[0].Error, letters[0].Attempts)
		}

		// With the handler fixed, a retry handles them in order, and new records of the key after them.
		if err := deadLetters(b).Retry(t.Context(), letters[0]); err != nil {
			t.Fatal(err)
		}
		got.fail = nil
		c = parking(t, b)
		stop = start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		last := p.publish(20, 5)
		got.await(t, "all records", got.has(slices.Concat(all, more, last)))
		_ = stop()
		got.inOrder(t)
		for id, n := range got.ids {
			if n != 1 {
				t.Errorf("%s was handled %d times", id, n)
			}
		}
		if _, ids := parked(t, b); len(ids) > 0 {
			t.Errorf("still parked: %q", ids)
		}
	})
}

func TestParkedRecordsAreRetriedAndDropped(t *testing.T) {
	t.Parallel()
	each(t, 1, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(30, 3)
		bad, good := of(all, "a1", 2)
		var tried atomic.Int64
		c, got := parking(t, b), newCollector()
		got.fail = func(r es.Record) error {
			if r.ID() == bad[0].ID() || r.ID() == bad[3].ID() {
				return fmt.Errorf("attempt %d: %w", tried.Add(1), errBroken)
			}
			return nil
		}
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		got.await(t, "all records that are not parked", got.has(good))
		letters := awaitParked(t, b, len(bad))

		// A retry while the consumer runs: the first fails again, and all stay parked.
		if err := deadLetters(b).Retry(t.Context(), letters[0]); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the second attempt", func() bool { return tried.Load() == 2 })
		letters, ids := awaitError(t, b, "attempt 2: no such customer")
		if len(ids) != len(bad) {
			t.Fatalf("parked are %q", ids)
		}

		// After a drop, the next ones are handled up to one that fails.
		if err := deadLetters(b).Drop(t.Context(), letters[0]); err != nil {
			t.Fatal(err)
		}
		letters, ids = awaitError(t, b, "attempt 3: no such customer")
		if want := len(bad) - 3; len(ids) != want || ids[0] != bad[3].ID() {
			t.Fatalf("parked are %q", ids)
		}
		// Dropping a letter twice drops no other letter.
		stale := letters[0]
		stale.Letter -= 3
		if err := deadLetters(b).Drop(t.Context(), stale); err != nil {
			t.Fatal(err)
		}
		letters, _ = awaitError(t, b, "attempt 4: no such customer")
		if err := deadLetters(b).Drop(t.Context(), letters[0]); err != nil {
			t.Fatal(err)
		}
		got.await(t, "the rest", got.has(slices.Concat(bad[1:3], bad[4:])))
		_ = stop()
		if got.ids[bad[0].ID()]+got.ids[bad[3].ID()] != 0 {
			t.Error("a dropped record was handled")
		}
		got.records = append([]es.Record{bad[0], bad[3]}, got.records...) // for inOrder
	})
}

// awaitParked waits until n letters are parked.
func awaitParked(t testing.TB, b bank, n int) []kafka.DeadLetter {
	t.Helper()
	letters, _ := awaitLetters(t, b, fmt.Sprintf("%d records are parked", n), func(letters []kafka.DeadLetter) bool { return len(letters) == n })
	return letters
}

func awaitLetters(t testing.TB, b bank, what string, are func([]kafka.DeadLetter) bool) (letters []kafka.DeadLetter, ids []string) {
	t.Helper()
	eventually(t, what, func() bool {
		letters, ids = parked(t, b)
		return are(letters)
	})
	return letters, ids
}

// awaitError waits until the first letter has an error message.
func awaitError(t testing.TB, b bank, message string) ([]kafka.DeadLetter, []string) {
	t.Helper()
	return awaitLetters(t, b, "the first letter says "+message, func(letters []kafka.DeadLetter) bool { return len(letters) > 0 && letters[0].Error == message })
}

// Letters that were handled or dropped are not read again. Reading them all took minutes after 100,000.
func TestListingBeginsAtTheOffsetOfTheGroup(t *testing.T) {
	t.Parallel()
	each(t, 3, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		all := p.publish(300, 3)
		c, got := parking(t, b), newCollector()
		var broken atomic.Bool
		broken.Store(true)
		got.fail = func(r es.Record) error {
			if broken.Load() && (r.Stream.ID == "a0" || r.Stream.ID == "a1") {
				return errBroken
			}
			return nil
		}
		stop := start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		a0, others := of(all, "a0", 1)
		a1, a2 := of(others, "a1", 1)
		got.await(t, "the records of the third stream", got.has(a2))
		letters := awaitParked(t, b, len(a0)+len(a1))
		broken.Store(false)
		first := func(key string) kafka.DeadLetter {
			return letters[slices.IndexFunc(letters, func(l kafka.DeadLetter) bool { return l.Key == key })]
		}
		if err := deadLetters(b).Retry(t.Context(), first("a0")); err != nil {
			t.Fatal(err)
		}
		got.await(t, "the records of the first stream", got.has(a0))
		if letters := awaitParked(t, b, len(a1)); letters[0].Key != "a1" || letters[0].Error != errBroken.Error() {
			t.Errorf("the first letter is %+v", letters[0])
		}
		if err := deadLetters(b).Retry(t.Context(), first("a1")); err != nil {
			t.Fatal(err)
		}
		got.await(t, "the records of the second stream", got.has(a1))
		awaitParked(t, b, 0)
		_ = stop() // commits
		if b.Fake == nil {
			awaitParked(t, b, 0)
			return
		}
		fetched := b.Fake.LoseRequest(kmsg.Fetch)
		awaitParked(t, b, 0)
		select {
		case <-fetched:
			t.Error("letters that were retried were read again")
		default:
		}
		b.Fake.Heal()
	})
}
