package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// sessionAtLeastOnce publishes without transactions: it moves the checkpoint when everything before it is acknowledged.
func (w *work) sessionAtLeastOnce(ctx context.Context) (moved bool, err error) {
	s, err := w.open(ctx, client.Gapless(w.config, w.smallest))
	if err != nil {
		return false, err
	}
	reports := newReports(s)
	s.heard.Go(reports.hear)
	defer s.close()
	if s.c.Position, err = w.r.AtLeastOnce.LoadCheckpoint(ctx, w.checkpointName()); err != nil {
		return false, err
	}
	s.c.Topics = w.topics
	if err := w.checkHistory(ctx, &s.c); err != nil {
		return false, err
	}
	w.r.stats.set(func(st *RelayStats) { st.Working, st.Takeovers = true, st.Takeovers+1 })
	w.r.log.Info("kafka: relay works, at least once", "position", s.c.Position, "holder", w.holder)

	reading, stopReading := context.WithCancel(ctx)
	ahead := newReadAhead(w.r, s.c.Position)
	var reader sync.WaitGroup
	reader.Go(func() { ahead.run(reading) })
	defer reader.Wait()
	defer stopReading()
	look := time.NewTicker(10 * time.Minute)
	defer look.Stop()
	var b batch
	for {
		select {
		case <-ctx.Done():
			return moved, ctx.Err()
		case <-look.C:
			if err := s.to.refresh(ctx, &s.c); err != nil {
				return moved, err
			}
			continue
		case <-ahead.ready:
		}
		if b, err = ahead.take(b); err != nil {
			return moved, err
		}
		if len(b.records) == 0 && b.upTo-s.c.Position < far {
			continue
		}
		if err := s.publishAtLeastOnce(ctx, b, reports); err != nil {
			return moved, err
		}
		moved = true
		w.r.stats.behind(ahead.oldest())
	}
}

func (w *work) checkpointName() string { return "relay/" + w.r.Prefix + "/" + w.r.name() }

// publishAtLeastOnce publishes a batch and, when all of it is acknowledged, moves the checkpoint.
func (s *session) publishAtLeastOnce(ctx context.Context, b batch, reports *reports) error {
	c := s.c.clone()
	if err := s.aim(ctx, &b, &c); err != nil {
		return err
	}
	if err := s.w.at("batch"); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	same := s.look(ctx, stop)
	err := s.deliver(sending, b, reports)
	if changed := same(); changed != nil {
		return s.examineAgain(ctx, changed)
	}
	if err != nil {
		return err
	}
	if err := s.w.at("acknowledged"); err != nil {
		return err
	}
	moved, err := s.w.r.AtLeastOnce.MoveCheckpoint(ctx, s.w.checkpointName(), s.c.Position, c.Position)
	if err != nil {
		return err
	}
	if !moved {
		s.w.topics = nil
		return fmt.Errorf("kafka: the checkpoint of relay %s is not at %d any more: another relay works, or it was reset", s.w.r.name(), s.c.Position)
	}
	s.w.r.stats.published(int(c.Records-s.c.Records), c.Position)
	s.c, s.w.topics = c, c.Topics
	return nil
}

// deliver sends a batch, and returns when all of it is acknowledged.
func (s *session) deliver(ctx context.Context, b batch, reports *reports) error {
	for i := range b.records {
		if err := s.sendRecord(ctx, &b.records[i], s.targets[i]); err != nil {
			return err
		}
	}
	if err := s.w.at("produced"); err != nil {
		return err
	}
	return reports.await(ctx, len(b.records))
}

func (w *work) resetAtLeastOnce(ctx context.Context, to es.Position) error {
	for {
		from, err := w.r.AtLeastOnce.LoadCheckpoint(ctx, w.checkpointName())
		if err != nil {
			return err
		}
		moved, err := w.r.AtLeastOnce.MoveCheckpoint(ctx, w.checkpointName(), from, to)
		if err != nil || moved {
			return err
		}
	}
}

// reports counts what the cluster has acknowledged. The producer is one that fails for good rather than leave a gap.
type reports struct {
	s       *session
	acked   atomic.Int64
	awaited atomic.Int64
	full    chan struct{}
	failed  chan error
	counted int64
}

func newReports(s *session) *reports {
	return &reports{s: s, full: make(chan struct{}, 1), failed: make(chan error, 1)}
}

func (r *reports) hear() {
	for event := range r.s.p.Events() {
		m, ok := event.(*kafka.Message)
		switch {
		case !ok:
			r.s.event(event)
			if err, ok := event.(kafka.Error); ok && err.IsFatal() {
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

// await returns when so many more messages are acknowledged.
func (r *reports) await(ctx context.Context, messages int) error {
	r.counted += int64(messages)
	r.awaited.Store(r.counted)
	for r.acked.Load() < r.counted {
		select {
		case <-r.full:
		case err := <-r.failed:
			return r.s.unknown("publish", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
