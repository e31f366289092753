package relay

import (
	"context"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/wire"
)

// makePlan sets the destination of each record of a batch and completes the new checkpoint. It runs before a transaction is open.
func (s *session) makePlan(ctx context.Context, b *batch, c *checkpoint) error {
	s.plan = s.plan[:0]
	parked := c.parkedStreams()
	var last *es.Record
	for i := range b.records {
		r := &b.records[i]
		if parked[r.Stream] {
			s.plan = append(s.plan, nil)
			continue
		}
		to, err := s.topics.of(ctx, r, c)
		if err != nil {
			return err
		}
		if err := to.keepsRecord(r); err != nil {
			return err
		}
		if err := s.adjustBatches(to); err != nil {
			return err
		}
		if err := s.fits(r, to); err != nil {
			if s.r.TooLarge != es.Park {
				return client.PermanentError{Err: err}
			}
			if err := c.park(r, err); err != nil {
				return err
			}
			s.r.log.Error("kafka: stream parked", "stream", r.Stream, "err", err)
			parked = c.parkedStreams()
			to = nil
		}
		s.plan = append(s.plan, to)
		if to != nil {
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

// fits returns an error if a record is above the limit of a topic.
func (s *session) fits(r *es.Record, to *destination) error {
	if s.encoder.SizeLimit(r) <= to.limit {
		return nil
	}
	m, err := s.encoder.Encode(r, &to.name)
	if err != nil {
		return err
	}
	if size := wire.BatchSize(m); size > to.limit {
		return &TooLargeError{Record: *r, Topic: to.name, Size: size, Limit: to.limit}
	}
	return nil
}
