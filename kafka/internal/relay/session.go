package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

const (
	callFor      = 3 * time.Second  // the timeout of one call to end or begin transactions; the session calls again
	refreshEvery = 10 * time.Minute // between two examinations of all topics
)

// session is one producer's lifetime.
type session struct {
	r         *Relay
	p         *client.Producer
	admin     *kafka.AdminClient
	topics    *destinations
	encoder   *wire.Encoder
	c         checkpoint // the committed one
	found     bool       // c was read, so that it is not the first
	plan      []outgoing // the messages of the current batch
	firsts    []*first   // of the partitions whose first message is not acknowledged yet
	last      time.Time  // when the last transaction was committed
	checks    int        // batches whose topics were checked; see recheck
	sending   sending    // the current batch, or the last one
	listed    int        // topics in the list that was written last
	sinceList int        // checkpoints since then
	events    sync.WaitGroup
}

// sessionExactlyOnce publishes until an error, and reports whether it has published anything.
func (r *Relay) sessionExactlyOnce(ctx context.Context) (published bool, err error) {
	s, err := r.open(ctx, client.Transactional(r.producer, r.transactionalID))
	if err != nil {
		return false, err
	}
	defer s.close()
	if err := s.begin(ctx); err != nil {
		return false, s.explainFenced(ctx, err)
	}
	if err := s.takeOver(ctx); err != nil {
		return false, s.explainFenced(ctx, s.explainDenied(ctx, err))
	}
	ahead, stop := s.readAhead(ctx)
	defer stop()
	published, err = s.publish(ctx, ahead)
	return published, s.explainFenced(ctx, s.explainDenied(ctx, err))
}

// open returns a session with a new producer.
func (r *Relay) open(ctx context.Context, config client.ConfigMap) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := client.OpenProducer(config, r.smallest, r.trouble)
	if err != nil {
		return nil, err
	}
	s := &session{r: r, p: p, encoder: wire.NewEncoder(r.store, r.Encoding, r.ContentType)}
	if r.AtLeastOnce == nil {
		s.events.Go(s.drain)
	}
	if s.admin, err = kafka.NewAdminClientFromProducer(p.Producer); err != nil {
		s.close()
		return nil, fmt.Errorf("kafka: %w", err)
	}
	s.topics = newDestinations(r, s.admin)
	return s, nil
}

// drain receives the producer's events; otherwise commits block.
func (s *session) drain() {
	for event := range s.p.Events() {
		s.event(event)
	}
}

func (s *session) event(event kafka.Event) {
	switch event := event.(type) {
	case kafka.Error:
		s.r.trouble.Event(event)
	case *kafka.Stats:
		s.r.statistics(event.String())
	}
}

func (s *session) close() {
	err := client.CloseWithin(func() error {
		if s.admin != nil {
			s.admin.Close()
		}
		s.p.Close()
		s.events.Wait()
		return nil
	})
	if err != nil {
		s.r.log.Error("kafka: producer not closed", "err", err)
	}
}

// readAhead starts to read the log after the checkpoint. stop ends that and waits for it.
func (s *session) readAhead(ctx context.Context) (ahead *readAhead, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ahead = newReadAhead(s.r, s.c.Position)
	var reading sync.WaitGroup
	reading.Go(func() { ahead.run(ctx) })
	return ahead, func() {
		cancel()
		reading.Wait()
	}
}

// begin fences the previous producer, then reads the checkpoint.
func (s *session) begin(ctx context.Context) error {
	r := s.r
	if err := r.checkCheckpointTopic(ctx, s.admin); err != nil {
		return err
	}
	if err := r.step("open"); err != nil {
		return err
	}
	if err := s.initTransactions(ctx); err != nil {
		return err
	}
	if err := r.step("init"); err != nil {
		return err
	}
	c, found, others, err := r.loadCheckpoint(ctx, s.admin)
	if err != nil {
		return err
	}
	if found && (c.Store != r.store || c.Relay != r.Name) {
		return client.Permanentf("the checkpoint of relay %s is of relay %s of store %s; Reset the relay", r.Name, c.Relay, c.Store)
	}
	if !found && len(others) > 0 {
		r.log.Info("kafka: relay has no checkpoint yet, other relays have", "topic", r.Checkpoints, "others", len(others))
	}
	if err := r.step("checkpoint read"); err != nil {
		return err
	}
	s.c, s.found = c, found
	s.c.Store, s.c.Relay = r.store, r.Name
	return nil
}

// initTransactions fences the predecessor and aborts its open transaction. It waits for a cluster that is not available.
func (s *session) initTransactions(ctx context.Context) error {
	for {
		limit, cancel := context.WithTimeout(ctx, callFor)
		err := s.p.InitTransactions(limit)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e, ok := client.KafkaError(err); !ok || !e.IsRetriable() {
			return s.cannotInit(err)
		}
		err = s.r.trouble.Explain(err)
		s.r.log.Warn("kafka: relay waits for the cluster", "err", err, "brokers", client.Brokers(s.r.producer))
		s.r.Stats.failed(err)
		if err := client.Sleep(ctx, client.Backoff(0)); err != nil {
			return err
		}
	}
}

// cannotInit adds the remedy to an error of InitTransactions, if there is one.
func (s *session) cannotInit(err error) error {
	err = wrap("begin as "+s.r.transactionalID, err)
	return cmp.Or(client.Denied(err, "Write", "transactional id "+s.r.transactionalID), err)
}

// takeOver writes the first checkpoint of this process, which shows others that it works, and tries to publish parked streams again.
func (s *session) takeOver(ctx context.Context) error {
	if err := s.r.checkFilter(&s.c, s.found); err != nil {
		return err
	}
	if err := s.r.checkHistory(ctx, &s.c); err != nil {
		return err
	}
	before := s.c.Holder
	if before != s.r.holder {
		s.c.Takeovers++
	}
	if before != s.r.holder && (s.found || !s.r.began) {
		s.r.Stats.set(func(st *Snapshot) { st.Takeovers++ })
	}
	s.r.began = !s.found
	s.r.log.Info("kafka: relay works", "position", s.c.Position, "holder", s.r.holder, "before", before)
	s.r.Stats.set(func(st *Snapshot) { st.Working = true })
	s.showParked()
	if before == s.r.holder || !s.found {
		return nil // the first checkpoint comes with the first batch: if the cluster was wrong about it, an empty one would destroy the real one
	}
	if len(s.c.Parked) > 0 {
		return s.unpark(ctx)
	}
	return s.transaction(ctx, batch{upTo: s.c.Position})
}

// explainFenced decides what it means that another producer has the transactional id. With leases the session is tried again: the "other" may be
// a transaction that timed out. Without leases a relay that sees the checkpoint of another ends.
func (s *session) explainFenced(ctx context.Context, err error) error {
	if !errors.Is(err, errFenced) || s.r.Leases != nil || ctx.Err() != nil {
		return err
	}
	// The other relay fences this one first, and writes its checkpoint later. If this one began again in between, they would fence each other in turn.
	const attempts = 7 // about three seconds
	for attempt := range attempts {
		c, found, _, loadErr := s.r.loadCheckpoint(ctx, s.admin)
		if loadErr == nil && found && c.Holder != s.r.holder {
			return fmt.Errorf("kafka: relay %s: %w: it is %s", s.r.key, ErrFenced, c.Holder)
		}
		if client.Sleep(ctx, client.Backoff(attempt)) != nil {
			break
		}
	}
	return err
}

// explainDenied names the topic to which the user may not write, if that is why a transaction failed: librdkafka's error does not.
func (s *session) explainDenied(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	names := []string{s.r.Checkpoints}
	return client.Missing(ctx, s.admin, kafka.ACLOperationWrite, err, slices.AppendSeq(names, maps.Keys(s.topics.byName))...)
}

// wrap wraps an error of librdkafka after which only the cluster knows what is committed.
func wrap(what string, err error) error {
	e, ok := client.KafkaError(err)
	if ok && (e.Code() == kafka.ErrFenced || e.Code() == kafka.ErrProducerFenced || e.Code() == kafka.ErrInvalidProducerEpoch) {
		return fmt.Errorf("kafka: %s: %w: %w", what, errFenced, err)
	}
	return fmt.Errorf("kafka: %s: %w", what, err)
}
