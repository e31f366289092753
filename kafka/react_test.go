package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// bookkeeping is a reaction that deposits 1 for each record of a topic into the account with the id of its stream.
func bookkeeping(store *sqlite.Store, source projection.Source, done func(r es.Record) error) projection.Reaction {
	repo := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	return projection.Reaction{
		Name: "books", Source: source, From: projection.Beginning(), Lease: time.Second, Batch: 20, Retries: -1, OnError: es.Stop,
		Handle: func(ctx context.Context, r es.Record) error {
			if _, err := repo.Execute(ctx, r.Stream.ID, account.Open{Owner: "eve"}, es.CommandID("open")); err != nil {
				return err
			}
			_, err := repo.Execute(ctx, r.Stream.ID, account.Deposit{Amount: 1}, es.Step("book"))
			if err == nil && done != nil {
				err = done(r)
			}
			return err
		},
	}
}

// playBooks is a process that reacts. Its arguments are database, broker and topic.
func playBooks(ctx context.Context, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	source, err := kafka.SourceConfig{Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": args[1]}}, Topics: []string{args[2]}, Logger: log}.Open(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	store, err := sqlite.Open(args[0])
	if err != nil {
		return err
	}
	return errors.Join(store.React(ctx, bookkeeping(store, source, nil)), store.Close())
}

// deposited returns the number of deposits in all accounts, and how many have the same cause as another.
func deposited(t testing.TB, store *sqlite.Store) (all, twice int) {
	t.Helper()
	causes := make(map[string]bool)
	for r, err := range store.All(t.Context(), 0, es.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Type != "deposited" {
			continue
		}
		all++
		if cause := r.Meta[es.MetaCausation]; causes[cause] {
			twice++
		} else {
			causes[cause] = true
		}
	}
	return all, twice
}

func (b bank) books(t testing.TB, store *sqlite.Store, want int) {
	t.Helper()
	insist(t, fmt.Sprintf("%d deposits exist", want), func() error {
		if all, _ := deposited(t, store); all < want {
			return fmt.Errorf("there are %d", all)
		}
		return nil
	})
	if all, twice := deposited(t, store); all != want || twice > 0 {
		t.Errorf("%d deposits for %d records, %d of them duplicates", all, want, twice)
	}
}

func TestKilledReactionsTakeEffectOnce(t *testing.T) {
	t.Parallel()
	each(t, 3, func(t *testing.T, b bank) {
		store, path := openFile(t)
		run := func() *child.Process { return child.Start(t, "books", path, b.Bootstrap, b.topic) }
		p, published := newPublisher(t, b), 0
		processes := []*child.Process{run(), run()}
		for range 6 {
			before, _ := deposited(t, store)
			published += len(p.publish(100, 9))
			insist(t, "new deposits exist", func() error {
				if all, _ := deposited(t, store); all <= before {
					return fmt.Errorf("there are %d", all)
				}
				return nil
			})
			i := rand.N(len(processes))
			processes[i].Stop()
			processes[i] = run()
		}
		b.books(t, store, published)
	})
}

func TestRedeliveredRecordTakesEffectOnce(t *testing.T) {
	t.Parallel()
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 2)
	store, _ := openFile(t)
	published := len(newPublisher(t, b).publish(60, 5))
	topics := source(t, b)
	// Each run stops between the effect and the checkpoint of a record.
	var handled atomic.Int32
	for _, limit := range []int32{1, 7, 14} {
		var seen atomic.Int32
		err := store.React(t.Context(), bookkeeping(store, topics, func(es.Record) error {
			handled.Add(1)
			if seen.Add(1) >= limit {
				return errCrash
			}
			return nil
		}))
		if !errors.Is(err, errCrash) {
			t.Fatalf("React returned %v", err)
		}
	}
	stop := start(t, func(ctx context.Context) error {
		return store.React(ctx, bookkeeping(store, topics, func(es.Record) error { handled.Add(1); return nil }))
	})
	b.books(t, store, published)
	_ = stop()
	if int(handled.Load()) <= published {
		t.Errorf("%d records were handled, want more than %d: none was redelivered", handled.Load(), published)
	}
}
