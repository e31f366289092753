package relay

import (
	"context"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// makePlan sets the messages of a batch with their destinations, and completes the new checkpoint. It runs before a transaction is open.
func (s *session) makePlan(ctx context.Context, b *batch, c *checkpoint) error {
	clear(s.plan) // release its data
	s.plan = s.plan[:0]
	parked := c.parkedStreams()
	var last *es.Record
	for i := range b.records {
		r := &b.records[i]
		if parked[r.Stream] {
			continue
		}
		before := len(s.plan)
		unfit, err := s.planRecord(ctx, r, c)
		if err != nil {
			return err
		}
		if unfit != nil {
			s.plan = s.plan[:before] // all messages of a record are published, or none
			if s.r.TooLarge != es.Park {
				return client.PermanentError{Err: unfit}
			}
			if err := c.park(r, unfit); err != nil {
				return err
			}
			s.r.log.Error("kafka: stream parked", "stream", r.Stream, "err", unfit)
			parked = c.parkedStreams()
		}
		if len(s.plan) > before {
			c.Records++
			last = r
		}
	}
	if last != nil {
		c.Last = &published{last.Position, last.ID(), last.Time}
	}
	c.Position, c.Holder, c.At = b.upTo, s.r.holder, time.Now().UTC()
	return nil
}

// planRecord adds the messages of a record to the plan. unfit is why one of them is too large for its topic.
func (s *session) planRecord(ctx context.Context, r *es.Record, c *checkpoint) (unfit, err error) {
	first := len(s.plan)
	if s.plan, err = s.r.messages(s.plan, r); err != nil {
		return nil, err
	}
	for i := first; i < len(s.plan); i++ {
		o := &s.plan[i]
		if o.to, err = s.topics.of(ctx, o.r, c); err != nil {
			return nil, err
		}
		if err := o.to.keepsRecord(o.r); err != nil {
			return nil, err
		}
		if err := s.adjustBatches(o.to); err != nil {
			return nil, err
		}
		if unfit := s.fits(o); unfit != nil {
			return unfit, nil
		}
	}
	return nil, nil
}

// adjustBatches ends the session if a topic allows less than the producer's batches; the next session makes smaller ones.
func (s *session) adjustBatches(to *destination) error {
	if to.limit >= s.r.smallest {
		return nil
	}
	s.r.smallest = to.limit
	if client.BatchSize(to.limit) < client.BatchSize(client.LargestMessage) {
		return errRestart
	}
	return nil
}

// fits returns an error if a message is above the limit of its topic.
func (s *session) fits(o *outgoing) error {
	if s.encoder.SizeLimit(o.r, o.extra) <= o.to.limit {
		return nil
	}
	m, err := s.encoder.Encode(o.r, &o.to.name, o.extra)
	if err != nil {
		return err
	}
	if size := wire.BatchSize(m); size > o.to.limit {
		return &TooLargeError{Record: *o.r, Topic: o.to.name, Size: size, Limit: o.to.limit}
	}
	return nil
}
