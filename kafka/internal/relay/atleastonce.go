package relay

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/kafka/internal/client"
)

// sessionAtLeastOnce publishes without transactions: it moves the checkpoint when everything before it is acknowledged.
func (r *Relay) sessionAtLeastOnce(ctx context.Context) (published bool, err error) {
	s, err := r.open(ctx, client.Gapless(r.producer))
	if err != nil {
		return false, err
	}
	reports := newReports(s)
	s.events.Go(reports.collect)
	defer s.close()
	if s.c.Position, err = r.AtLeastOnce.LoadCheckpoint(ctx, r.lease()); err != nil {
		return false, err
	}
	if err := r.adoptFilter(ctx, s.c.Position > 0); err != nil {
		return false, err
	}
	s.c.Topics = r.topics
	if err := r.checkHistory(ctx, &s.c); err != nil {
		return false, err
	}
	r.Stats.set(func(st *Snapshot) { st.Working, st.Takeovers = true, st.Takeovers+1 })
	r.log.Info("kafka: relay works, at least once", "position", s.c.Position, "holder", r.holder)

	ahead, stop := s.readAhead(ctx)
	defer stop()
	refresh := time.NewTicker(cmp.Or(s.r.Refresh, refreshEvery))
	defer refresh.Stop()
	var b batch
	for {
		select {
		case <-ctx.Done():
			return published, ctx.Err()
		case <-refresh.C:
			if err := s.topics.refresh(ctx, &s.c); err != nil {
				return published, err
			}
			continue
		case <-ahead.ready:
		}
		if b, err = ahead.take(b, s.r.pace.bytes()); err != nil {
			return published, err
		}
		if len(b.records) == 0 && b.upTo-s.c.Position < filteredStep {
			continue
		}
		if err := s.publishAtLeastOnce(ctx, b, reports); err != nil {
			return published, s.explainDenied(ctx, err)
		}
		published = true
		r.Stats.caughtUpTo(ahead.oldest())
	}
}

// publishAtLeastOnce publishes a batch and, when all of it is acknowledged, moves the checkpoint.
func (s *session) publishAtLeastOnce(ctx context.Context, b batch, reports *reports) error {
	if err := s.r.checkFilterMark(ctx); err != nil { // Refilter does not fence this relay
		return err
	}
	c := s.c.clone()
	if err := s.makePlan(ctx, &b, &c); err != nil {
		return err
	}
	if err := s.r.step("batch"); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	unchanged := s.recheck(ctx, stop)
	s.sending = s.sendingOf(b)
	err := s.deliver(sending, reports)
	if ctx.Err() == nil {
		s.sending.left, s.sending.counted = reports.left(), time.Since(s.sending.begun)
		s.paced(err)
	}
	if changed := unchanged(); changed != nil {
		return s.examineAgain(ctx, changed)
	}
	if err != nil {
		return err
	}
	if err := s.r.step("acknowledged"); err != nil {
		return err
	}
	moved, err := s.r.AtLeastOnce.MoveCheckpoint(ctx, s.r.lease(), s.c.Position, c.Position)
	if err != nil {
		return err
	}
	if !moved {
		s.r.topics = nil
		return fmt.Errorf("kafka: checkpoint of relay %s is not at %d: another relay works, or it was reset", s.r.Name, s.c.Position)
	}
	s.r.Stats.published(int(c.Records-s.c.Records), c.Position)
	s.c, s.r.topics = c, c.Topics
	return nil
}

// deliver sends a batch, and returns when all of it is acknowledged.
func (s *session) deliver(ctx context.Context, reports *reports) error {
	for i := range s.plan {
		if err := s.send(ctx, i); err != nil {
			return reports.cause(ctx, err)
		}
	}
	if err := s.r.step("produced"); err != nil {
		return err
	}
	if err := reports.await(ctx, len(s.plan)); err != nil {
		return err
	}
	s.firstsAcknowledged()
	return nil
}

func (r *Relay) resetAtLeastOnce(ctx context.Context, to es.Position) error {
	if err := r.refilterAtLeastOnce(ctx); err != nil {
		return err
	}
	return r.setCheckpoint(ctx, r.lease(), to)
}

func (r *Relay) refilterAtLeastOnce(ctx context.Context) error {
	return r.setCheckpoint(ctx, r.filterName(), r.filterMark())
}

// setCheckpoint sets a checkpoint in the store, whatever it is.
func (r *Relay) setCheckpoint(ctx context.Context, name string, to es.Position) error {
	for {
		from, err := r.AtLeastOnce.LoadCheckpoint(ctx, name)
		if err != nil {
			return err
		}
		moved, err := r.AtLeastOnce.MoveCheckpoint(ctx, name, from, to)
		if err != nil || moved {
			return err
		}
	}
}

// filterName is the name of a checkpoint that has the mark of the filter, and no position.
func (r *Relay) filterName() string { return r.lease() + filterSuffix }

// filterSuffix ends the name of a checkpoint that has the mark of a filter.
const filterSuffix = "/filter"

// filterMark is a hash of the filter, which is not 0.
func (r *Relay) filterMark() es.Position { return es.Position(uint64(canon.Mark(r.filter))>>1 | 1) }

// adoptFilter keeps the filter with a checkpoint that has none, and refuses another one.
func (r *Relay) adoptFilter(ctx context.Context, found bool) error {
	moved, err := r.AtLeastOnce.MoveCheckpoint(ctx, r.filterName(), 0, r.filterMark())
	if err != nil {
		return err
	}
	if moved && found {
		r.log.Info("kafka: filter kept with the checkpoint for the first time", "filter", r.filter)
	}
	return r.checkFilterMark(ctx)
}

func (r *Relay) checkFilterMark(ctx context.Context) error {
	mark, err := r.AtLeastOnce.LoadCheckpoint(ctx, r.filterName())
	if err == nil && mark != r.filterMark() {
		err = client.Invalid("the Filter of relay %s was not %.100s: accept the change with Refilter, or publish again with Reset", r.Name, r.filter)
	}
	return err
}

// reports counts acknowledged messages. The producer fails for good rather than leave a gap; see client.Gapless.
type reports struct {
	s       *session
	acked   atomic.Int64
	awaited atomic.Int64
	full    chan struct{} // signals that acked has reached awaited
	failed  chan error
	sent    int64
}

func newReports(s *session) *reports {
	return &reports{s: s, full: make(chan struct{}, 1), failed: make(chan error, 1)}
}

// collect receives the producer's events until it is closed.
func (r *reports) collect() {
	for event := range r.s.p.Events() {
		m, ok := event.(*kafka.Message)
		switch {
		case !ok:
			r.s.event(event)
			// After a failure librdkafka gives up the messages behind it, so that there is no gap. The report of the failed message
			// follows, and has the code of the failure.
			if err, ok := event.(kafka.Error); ok && err.IsFatal() && err.Code() != kafka.ErrGaplessGuarantee {
				r.fail(err)
			}
		case m.TopicPartition.Error != nil:
			r.fail(m.TopicPartition.Error)
		case r.acked.Add(1) == r.awaited.Load():
			signal(r.full)
		}
	}
}

func (r *reports) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// cause returns why the producer has failed for good, if that is why it does not take a message any more. The report of the message that
// failed has the reason, and may not have arrived yet.
func (r *reports) cause(ctx context.Context, err error) error {
	if e, ok := client.KafkaError(err); !ok || e.Code() != kafka.ErrFatal {
		return err
	}
	select {
	case reason := <-r.failed:
		return wrap("publish", reason)
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
	}
	return err
}

// left returns how many messages are not acknowledged.
func (r *reports) left() int { return int(max(0, r.sent-r.acked.Load())) }

// await returns when as many further messages are acknowledged.
func (r *reports) await(ctx context.Context, messages int) error {
	r.sent += int64(messages)
	r.awaited.Store(r.sent)
	for r.acked.Load() < r.sent {
		select {
		case <-r.full:
		case err := <-r.failed:
			return wrap("publish", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
