// Package relay publishes a log to topics. Package kafka documents its settings and guarantees.
//
// A Relay runs sessions one after the other. A session is one producer's lifetime: it fences its predecessor, reads the checkpoint,
// and publishes batches, each in a transaction with the new checkpoint. After any error with an uncertain outcome the next session
// reads the checkpoint again.
package relay

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/relaynote"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// Config has the settings of a relay, with defaults filled in. Package kafka documents them.
type Config struct {
	Cluster     client.Cluster
	Log         es.Log
	Prefix      string
	Name        string
	Checkpoints string // the checkpoint topic
	Encoding    wire.Encoding
	ContentType func(r es.Record) string
	Filter      es.Filter
	Route       func(es.Record) string
	Transform   func(es.Record) ([]Message, error) // nil publishes the record
	Topics      Topics
	Compacted   bool // publish to topics that drop records
	Leases      es.Leases
	Lease       time.Duration
	AtLeastOnce es.Checkpoints
	TooLarge    es.OnError
	Batch       int
	Bytes       int
	KeepAlive   time.Duration
	Logger      *slog.Logger
	Stats       *Stats

	// Refresh, for tests, is how often the topics of an idle relay are examined. 0 means refreshEvery.
	Refresh time.Duration

	// Hook, for tests, is called at each step of a session. Its error ends Run as if the process had been killed there.
	Hook func(step string) error
}

// Topics says how topics are created.
type Topics struct {
	Partitions  int
	Replication int
	MinInSync   int
	Config      map[string]string
}

// ErrFenced is wrapped by the error of Run when another relay has taken over and there are no leases.
var ErrFenced = errors.New("another relay of this name has taken over; run one at a time, or set Leases")

// TooLargeError reports a record above its topic's limit. Package kafka documents it.
type TooLargeError struct {
	Record es.Record
	Topic  string
	Size   int // of the message with its headers
	Limit  int // max.message.bytes of the topic
}

func (e *TooLargeError) Error() string {
	remedy := "raise max.message.bytes, or set TooLarge to es.Park"
	if e.Limit == client.LargestMessage {
		remedy = "make it smaller, or set TooLarge to es.Park" // no setting of a topic helps
	}
	return fmt.Sprintf("kafka: %s has %d bytes, topic %s allows %d: %s", e.Record.ID(), e.Size, e.Topic, e.Limit, remedy)
}

// Relay is one call of Run or Reset.
type Relay struct {
	Config
	log             *slog.Logger
	trouble         *client.Trouble  // of all clients
	producer        client.ConfigMap // except for what a session adds
	filter          string           // in its canonical form
	store           string
	key             string // of the checkpoint
	transactionalID string
	holder          string // names this process to others
	checkpointLimit int    // max.message.bytes of the checkpoint topic
	smallest        int    // the smallest max.message.bytes of the known topics
	pace            pace
	throttleLog     client.Sparse
	began           bool // this process has counted its takeover of a relay that has no checkpoint yet

	// topics, if records are published at least once, are those this process has written to while it had the lease. The checkpoint does not have them.
	topics map[string]client.Topic

	renewNow func(ctx context.Context) bool // renews the lease and reports whether it is still held; nil without leases
}

// New checks the cluster's settings.
func New(c Config) (*Relay, error) {
	producer, err := client.RelayConfig(c.Cluster)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	store := c.Log.ID()
	r := &Relay{
		Config: c, producer: producer, store: store, filter: canon.Filter(c.Filter),
		log:             client.Logger(c.Logger).With("relay", c.Name, "store", store),
		key:             store + "/" + c.Name,
		transactionalID: c.Prefix + "." + store + "." + c.Name,
		holder:          fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:6]),
		smallest:        client.LargestMessage,
		pace:            newPace(producer, c.Bytes, c.AtLeastOnce == nil),
	}
	r.trouble = client.NewTrouble(c.Cluster, r.log, c.Stats.failed)
	c.Stats.set(func(s *Snapshot) { s.Holder = r.holder })
	return r, nil
}

// checkpoints is the partition with the checkpoints.
func (r *Relay) checkpoints() client.Partition { return client.Partition{Topic: r.Checkpoints} }

// lease is the name of the lease, and of the checkpoint in a store.
func (r *Relay) lease() string { return relaynote.Lease(r.Prefix, r.Name) }

// Run publishes until ctx is done or an error is permanent.
func (r *Relay) Run(ctx context.Context) error {
	defer r.Stats.set(func(s *Snapshot) { s.Working = false })
	following, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	work.Go(func() { r.Stats.followHead(following, r.Log) })
	if r.Leases != nil {
		return r.runLeased(ctx)
	}
	return r.runSessions(ctx)
}

// Outcomes of a session that are not failures.
var (
	errRestart = errors.New("the producer needs other settings")
	errFenced  = errors.New("fenced by another producer with the same transactional id")
)

// runSessions runs sessions until ctx is done or an error is permanent.
func (r *Relay) runSessions(ctx context.Context) error {
	defer r.Stats.set(func(s *Snapshot) { s.Working = false })
	for attempt := 0; ; {
		published, err := r.session(ctx)
		if published {
			attempt = 0
		}
		var final client.PermanentError
		switch {
		case errors.As(err, new(crash)):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &final):
			return final.Err
		case errors.As(err, new(*es.AheadError)), errors.Is(err, es.ErrInvalid), errors.Is(err, es.ErrClosed), errors.Is(err, ErrFenced):
			return err
		case errors.Is(err, errRestart):
			continue
		}
		if final := client.Final(err); final != nil {
			return client.WithPrincipal(final, r.Cluster)
		}
		err = r.trouble.Explain(err)
		r.Stats.retried(err)
		r.log.Warn("kafka: relay restarts from its checkpoint", "err", err, "attempt", attempt+1)
		if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
			return err
		}
		if r.renewNow != nil && !r.renewNow(ctx) {
			return ctx.Err()
		}
		attempt++
	}
}

func (r *Relay) session(ctx context.Context) (published bool, err error) {
	if r.AtLeastOnce != nil {
		return r.sessionAtLeastOnce(ctx)
	}
	return r.sessionExactlyOnce(ctx)
}

// Reset writes a checkpoint that has only a position.
func (r *Relay) Reset(ctx context.Context, to es.Position) error {
	if r.AtLeastOnce != nil {
		return r.resetAtLeastOnce(ctx, to)
	}
	return r.change(ctx, func(s *session) error {
		before := s.c
		s.c = checkpoint{Store: before.Store, Relay: before.Relay, Position: to, Filter: r.filter, Trusted: true, Records: before.Records, Takeovers: before.Takeovers}
		err := s.transaction(ctx, batch{upTo: to})
		r.log.Info("kafka: relay reset", "from", before.Position, "to", to, "err", err)
		return err
	})
}

// Refilter writes the filter into the checkpoint.
func (r *Relay) Refilter(ctx context.Context) error {
	if r.AtLeastOnce != nil {
		return r.refilterAtLeastOnce(ctx)
	}
	return r.change(ctx, func(s *session) error {
		if !s.found {
			return nil // the first session keeps its filter
		}
		before := s.c.Filter
		s.c.Filter = r.filter
		err := s.transaction(ctx, batch{upTo: s.c.Position})
		r.log.Info("kafka: relay filter changed", "from", before, "to", r.filter, "position", s.c.Position, "err", err)
		return err
	})
}

// change fences a relay that runs, and writes another checkpoint.
func (r *Relay) change(ctx context.Context, write func(s *session) error) error {
	s, err := r.open(ctx, client.Transactional(r.producer, r.transactionalID))
	if err != nil {
		return err
	}
	defer s.close()
	if err = s.begin(ctx); err == nil {
		err = write(s)
	}
	if final := (client.PermanentError{}); errors.As(err, &final) {
		return final.Err
	}
	return client.WithPrincipal(cmp.Or(client.Final(err), err), r.Cluster)
}

// step calls the hook of tests.
func (r *Relay) step(name string) error {
	if r.Hook == nil {
		return nil
	}
	if err := r.Hook(name); err != nil {
		return crash{err}
	}
	return nil
}

// crash ends a session without any cleanup, as if the process had been killed.
type crash struct{ error }

func (c crash) Unwrap() error { return c.error }
