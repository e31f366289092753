package kafka

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// A session is the life of one producer.
type session struct {
	w       *work
	p       *kafka.Producer
	admin   *kafka.AdminClient
	to      *destinations
	encoder *wire.Encoder
	c       checkpoint // what is committed
	targets []target   // of the batch under way
	last    time.Time  // when the last transaction was committed
	looks   int        // at topics, one a batch
	heard   sync.WaitGroup
	ended   chan struct{} // of the producer
}

// A target is where a record of a batch goes; nil means nowhere.
type target = *destination

// sessionExactlyOnce publishes until there is trouble. After any, whatever its outcome, a new session finds out from the cluster how far it has come.
func (w *work) sessionExactlyOnce(ctx context.Context) (moved bool, err error) {
	s, err := w.open(ctx, client.Transactional(w.config, w.id, w.smallest))
	if err != nil {
		return false, err
	}
	defer s.close()
	if err := s.begin(ctx); err != nil {
		return false, s.fenced(ctx, err)
	}
	if err := s.takeOver(ctx); err != nil {
		return false, s.fenced(ctx, err)
	}
	reading, stopReading := context.WithCancel(ctx)
	ahead := newReadAhead(w.r, s.c.Position)
	var reader sync.WaitGroup
	reader.Go(func() { ahead.run(reading) })
	defer reader.Wait()
	defer stopReading()
	moved, err = s.publish(ctx, ahead)
	return moved, s.fenced(ctx, err)
}

func (w *work) open(ctx context.Context, config *kafka.ConfigMap) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := kafka.NewProducer(config)
	if err != nil {
		return nil, client.Invalid("settings of relay %s: %v", w.r.name(), err)
	}
	s := &session{w: w, p: p, ended: make(chan struct{}), encoder: wire.NewEncoder(w.store, wire.Encoding(w.r.Encoding), w.r.ContentType)}
	s.heard.Go(func() { client.ForwardLogs(p.Logs(), w.r.log, s.ended) })
	if w.r.AtLeastOnce == nil {
		s.heard.Go(s.drain)
	}
	if s.admin, err = kafka.NewAdminClientFromProducer(p); err != nil {
		s.close()
		return nil, fmt.Errorf("kafka: %w", err)
	}
	s.to = newDestinations(w, s.admin)
	return s, nil
}

// drain hears the producer's events: where nobody does, a commit hangs.
func (s *session) drain() {
	for event := range s.p.Events() {
		s.event(event)
	}
}

func (s *session) event(event kafka.Event) {
	if err, ok := event.(kafka.Error); ok {
		s.w.r.log.Debug("kafka: librdkafka reports", "error", err, "code", err.Code().String())
	}
}

func (s *session) close() {
	err := client.CloseWithin(func() error {
		if s.admin != nil {
			s.admin.Close()
		}
		s.p.Close()
		close(s.ended)
		s.heard.Wait()
		return nil
	})
	if err != nil {
		s.w.r.log.Error("kafka: producer not closed", "err", err)
	}
}

// fenced says what it means that another producer has the transactional id: who has the lease tries again, as the other may have been a transaction that took
// too long; without leases whoever sees another's checkpoint makes room.
func (s *session) fenced(ctx context.Context, err error) error {
	if !errors.Is(err, errFenced) || s.w.r.Leases != nil || ctx.Err() != nil {
		return err
	}
	// The other shuts this one out first and then writes its checkpoint. Who came back in between would shut it out in turn.
	for attempt := range looksForAnother {
		c, found, _, loadErr := s.w.loadCheckpoint(ctx, s.admin)
		if loadErr == nil && found && c.Holder != s.w.holder {
			return fmt.Errorf("kafka: relay %s: %w: it is %s", s.w.key, ErrFenced, c.Holder)
		}
		if client.Sleep(ctx, client.Backoff(attempt)) != nil {
			break
		}
	}
	return err
}

const looksForAnother = 7 // some three seconds

// begin shuts out whoever was there before, and only then reads how far he came.
func (s *session) begin(ctx context.Context) error {
	w := s.w
	if err := w.checkCheckpointTopic(ctx, s.admin); err != nil {
		return err
	}
	if err := w.at("open"); err != nil {
		return err
	}
	if err := s.init(ctx); err != nil {
		return err
	}
	if err := w.at("init"); err != nil {
		return err
	}
	c, found, others, err := w.loadCheckpoint(ctx, s.admin)
	if err != nil {
		return err
	}
	if found && (c.Store != w.store || c.Relay != w.r.name()) {
		return client.Permanentf("checkpoint %s in %s is of relay %s of store %s: it was written by something else; find out what, then Reset the relay", w.key, w.checkpointTopic, c.Relay, c.Store)
	}
	if !found && len(others) > 0 {
		w.r.log.Info("kafka: relay has no checkpoint yet, and others have", "topic", w.checkpointTopic, "others", len(others))
	}
	if err := w.at("checkpoint read"); err != nil {
		return err
	}
	s.c = c
	s.c.Store, s.c.Relay = w.store, w.r.name()
	return nil
}

// init shuts out the predecessor and ends what it left open.
func (s *session) init(ctx context.Context) error {
	for {
		limit, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := s.p.InitTransactions(limit)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e, ok := client.KafkaError(err)
		if !ok || !e.IsRetriable() {
			if ok && (e.Code() == kafka.ErrTransactionalIDAuthorizationFailed || e.Code() == kafka.ErrClusterAuthorizationFailed) {
				return client.Permanentf("begin as %s: %w; give the relay's user the rights Write and Describe on this transactional id", s.w.id, err)
			}
			if ok && e.Code() == kafka.ErrInvalidTransactionTimeout {
				return client.Permanentf("begin as %s: %w; set transaction.timeout.ms to no more than the brokers' transaction.max.timeout.ms", s.w.id, err)
			}
			return s.unknown("begin as "+s.w.id, err)
		}
		s.w.r.log.Warn("kafka: relay waits for the cluster", "error", err, "brokers", client.Brokers(s.w.config))
		s.w.r.stats.set(func(st *RelayStats) { st.Error, st.ErrorAt = err.Error(), time.Now() })
		if err := client.Sleep(ctx, client.Backoff(0)); err != nil {
			return err
		}
	}
}

// reset writes a checkpoint that knows of nothing but a position.
func (w *work) reset(ctx context.Context, to es.Position) error {
	if w.r.AtLeastOnce != nil {
		return w.resetAtLeastOnce(ctx, to)
	}
	s, err := w.open(ctx, client.Transactional(w.config, w.id, w.smallest))
	if err != nil {
		return err
	}
	defer s.close()
	if err = s.begin(ctx); err == nil {
		before := s.c
		s.c = checkpoint{Store: before.Store, Relay: before.Relay, Position: to, Trusted: true, Records: before.Records, Takeovers: before.Takeovers}
		err = s.transaction(ctx, batch{upTo: to})
		w.r.log.Info("kafka: relay reset", "from", before.Position, "to", to, "error", err)
	}
	if final := (client.Permanent{}); errors.As(err, &final) {
		return final.Err
	}
	return err
}

// checkHistory sees that the log still has what the checkpoint says was published.
func (w *work) checkHistory(ctx context.Context, c *checkpoint) error {
	head, err := es.Head(ctx, w.r.Log)
	if err != nil {
		return err
	}
	w.r.stats.set(func(s *RelayStats) { s.Head, s.Position = head, c.Position })
	if c.Position > head {
		return client.Permanentf("relay %s: its checkpoint: %w", w.key, &es.AheadError{After: c.Position, Head: head})
	}
	if c.Last == nil {
		return nil
	}
	for r, err := range w.r.Log.All(ctx, c.Last.Position-1, es.Filter{}) {
		if err != nil {
			return err
		}
		if r.Position == c.Last.Position && r.ID() == c.Last.ID && r.Time.Equal(c.Last.Time) {
			return nil
		}
		return client.Permanentf("relay %s: at position %d it has published %s of %v, and the log has %s of %v there: its database was restored from an older copy and written to since, so that topics and log tell different stories; "+
			"find out where they part, then Reset the relay to that position", w.key, c.Last.Position, c.Last.ID, c.Last.Time, r.ID(), r.Time)
	}
	return client.Permanentf("relay %s: the log has nothing at position %d, where %s was published: its database was restored from an older copy", w.key, c.Last.Position, c.Last.ID)
}

// takeOver writes the first checkpoint of this process, by which others see who works, and tries again what was parked.
func (s *session) takeOver(ctx context.Context) error {
	if err := s.w.checkHistory(ctx, &s.c); err != nil {
		return err
	}
	before := s.c.Holder
	if before != s.w.holder {
		s.c.Takeovers++
		s.w.r.stats.set(func(st *RelayStats) { st.Takeovers++ })
	}
	s.w.r.log.Info("kafka: relay works", "position", s.c.Position, "holder", s.w.holder, "before", before)
	s.w.r.stats.set(func(st *RelayStats) { st.Working = true })
	s.showParked()
	if before == s.w.holder {
		return nil
	}
	if len(s.c.Parked) > 0 {
		return s.unpark(ctx)
	}
	return s.transaction(ctx, batch{upTo: s.c.Position})
}

// publish is the loop. It never has a transaction open while it waits for records.
func (s *session) publish(ctx context.Context, ahead *readAhead) (moved bool, err error) {
	keepAlive := cmp.Or(s.w.r.KeepAlive, DefaultKeepAlive)
	quiet := time.NewTimer(keepAlive)
	defer quiet.Stop()
	look := time.NewTicker(10 * time.Minute)
	defer look.Stop()
	var b batch
	for {
		var alive bool
		select {
		case <-ctx.Done():
			return moved, ctx.Err()
		case <-ahead.ready:
		case <-quiet.C:
			alive = true
		case <-look.C:
			if err := s.to.refresh(ctx, &s.c); err != nil {
				return moved, err
			}
			continue
		}
		if b, err = ahead.take(b); err != nil {
			return moved, err
		}
		if len(b.records) == 0 && !alive && b.upTo-s.c.Position < far {
			continue
		}
		if err := s.transaction(ctx, b); err != nil {
			return moved, err
		}
		moved = true
		s.w.r.stats.behind(ahead.oldest())
		quiet.Reset(keepAlive)
	}
}

// transaction publishes a batch with the checkpoint that says so.
func (s *session) transaction(ctx context.Context, b batch) error {
	return s.transactionWith(ctx, b, func(*checkpoint) {})
}

// transactionWith is transaction with something more to say in the checkpoint.
func (s *session) transactionWith(ctx context.Context, b batch, also func(*checkpoint)) error {
	c := s.c.clone()
	if err := s.aim(ctx, &b, &c); err != nil {
		return err
	}
	also(&c)
	if err := s.w.at("batch"); err != nil {
		return err
	}
	if err := s.pause(ctx); err != nil {
		return err
	}
	if err := s.p.BeginTransaction(); err != nil {
		return s.unknown("begin a transaction", err)
	}
	if err := s.w.at("begun"); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	same := s.look(ctx, stop)
	err := s.produce(sending, b, &c)
	if crash := (crash{}); errors.As(err, &crash) {
		_ = same()
		return err
	}
	if changed := same(); changed != nil {
		return errors.Join(s.examineAgain(ctx, changed), s.abort(ctx))
	}
	if err != nil {
		return errors.Join(err, s.abort(ctx))
	}
	if err := s.w.at("produced"); err != nil {
		return err
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	if err := s.w.at("committed"); err != nil {
		return err
	}
	s.last = time.Now()
	s.w.r.stats.published(int(c.Records-s.c.Records), c.Position)
	s.c = c
	s.showParked()
	return nil
}

// breath is how long a transaction stays away from the end of the one before. A commit is answered when it is certain, and before each partition has
// been told of it. Until then the coordinator takes no partition into the next transaction, and librdkafka asks again after 20 ms, in which nothing is sent.
const breath = 3 * time.Millisecond

// pause waits until the last transaction is out of the way, as a rule.
func (s *session) pause(ctx context.Context) error {
	if left := breath - time.Since(s.last); left > 0 {
		return client.Sleep(ctx, left)
	}
	return nil
}

// aim finds out where each record of a batch goes, before a transaction is open, and makes the checkpoint.
func (s *session) aim(ctx context.Context, b *batch, c *checkpoint) error {
	s.targets = s.targets[:0]
	var left map[es.Stream]bool // parked streams
	var last *es.Record
	if len(c.Parked) > 0 {
		left = c.parkedStreams()
	}
	for i := range b.records {
		r := &b.records[i]
		if left[r.Stream] {
			s.targets = append(s.targets, nil)
			continue
		}
		to, err := s.to.of(ctx, r, c)
		if err != nil {
			return err
		}
		if to.limit < s.w.smallest {
			s.w.smallest = to.limit
			if client.BatchSize(to.limit) < client.BatchSize(client.LargestMessage) {
				return errRestart
			}
		}
		if err := s.fits(r, to); err != nil {
			if s.w.r.TooLarge != es.Park {
				return client.Permanent{Err: err}
			}
			if err := c.park(r, err); err != nil {
				return err
			}
			s.w.r.log.Error("kafka: record parked, and its stream with it", "error", err)
			left = c.parkedStreams()
			to = nil
		}
		s.targets = append(s.targets, to)
		if to != nil {
			c.Records++
			last = r
		}
	}
	if last != nil {
		c.Last = &published{last.Position, last.ID(), last.Time}
	}
	c.Position, c.Holder, c.At = b.upTo, s.w.holder, time.Now().UTC()
	return nil
}

// fits tells whether a topic takes a record.
func (s *session) fits(r *es.Record, to *destination) error {
	if s.encoder.SizeLimit(r) <= to.limit {
		return nil
	}
	m, err := s.encoder.Encode(r, &to.name)
	if err != nil {
		return err
	}
	size := wire.BatchSize(m)
	if size <= to.limit {
		return nil
	}
	return &TooLargeError{Record: *r, Topic: to.name, Size: size, Limit: to.limit}
}

// produce hands the messages to librdkafka, the checkpoint first: each partition is made part of the transaction by a question to its coordinator, and
// the one of the checkpoint is not to be the last to ask, when all else has been sent.
func (s *session) produce(ctx context.Context, b batch, c *checkpoint) error {
	if err := s.produceCheckpoint(ctx, c); err != nil {
		return err
	}
	for i := range b.records {
		to := s.targets[i]
		if to == nil {
			continue
		}
		if err := s.sendRecord(ctx, &b.records[i], to); err != nil {
			return err
		}
		if i == len(b.records)/2 {
			if err := s.w.at("producing"); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendRecord hands a record to librdkafka, for its partition of a topic.
func (s *session) sendRecord(ctx context.Context, r *es.Record, to *destination) error {
	m, err := s.encoder.Encode(r, &to.name)
	if err != nil {
		return err
	}
	m.TopicPartition.Partition = wire.Partition(m.Key, to.mark.Partitions)
	if err := s.send(ctx, m); err != nil {
		return fmt.Errorf("kafka: publish %s to %s: %w", r.ID(), to.name, err)
	}
	return nil
}

func (s *session) produceCheckpoint(ctx context.Context, c *checkpoint) error {
	value, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("kafka: checkpoint: %w", err)
	}
	if len(value) > s.w.checkpointLimit-1024 {
		return client.Permanentf("checkpoint of relay %s has %d bytes, and topic %s takes %d: raise its max.message.bytes, or that of the topics whose records are parked, and start the relay again",
			s.w.key, len(value), s.w.checkpointTopic, s.w.checkpointLimit)
	}
	err = s.send(ctx, &kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: &s.w.checkpointTopic, Partition: 0},
		Key:            []byte(s.w.key), Value: value,
	})
	if err != nil {
		return fmt.Errorf("kafka: write the checkpoint: %w", err)
	}
	return nil
}

// send hands over one message, and waits while the queue is full.
func (s *session) send(ctx context.Context, m *kafka.Message) error {
	for {
		err := s.p.Produce(m, nil)
		if e, ok := client.KafkaError(err); !ok || e.Code() != kafka.ErrQueueFull {
			return err
		}
		if err := client.Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// commit ends a transaction, and tells by its error when the outcome is not known.
func (s *session) commit(ctx context.Context) error {
	var last time.Time
	for {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		err := s.p.CommitTransaction(limit)
		cancel()
		if err == nil {
			return nil
		}
		e, ok := client.KafkaError(err)
		switch {
		case ok && !e.IsFatal() && e.TxnRequiresAbort():
			return errors.Join(s.unknown("commit", err), s.abort(ctx))
		case !ok || e.IsFatal() || !e.IsRetriable():
			return s.unknown("commit", err)
		}
		if ctx.Err() != nil && last.IsZero() {
			last = time.Now().Add(DefaultOverdue)
		}
		if !last.IsZero() && time.Now().After(last) {
			return s.unknown("commit", err)
		}
		s.w.r.stats.set(func(st *RelayStats) { st.Retries++; st.Error, st.ErrorAt = err.Error(), time.Now() })
		s.w.r.log.Warn("kafka: a commit takes long and is asked for again", "error", err)
	}
}

// abort ends a transaction so that readers need not wait until it has run out. If it cannot, the next session does.
func (s *session) abort(ctx context.Context) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := s.p.AbortTransaction(limit); err != nil {
		return s.unknown("abort", err)
	}
	return nil
}

// unknown wraps an error of librdkafka after which only the cluster knows what is committed.
func (s *session) unknown(what string, err error) error {
	e, ok := client.KafkaError(err)
	if ok && (e.Code() == kafka.ErrFenced || e.Code() == kafka.ErrProducerFenced || e.Code() == kafka.ErrInvalidProducerEpoch) {
		return fmt.Errorf("kafka: %s: %w: %w", what, errFenced, err)
	}
	return fmt.Errorf("kafka: %s: %w", what, err)
}
