package relay

import (
	"context"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// maxParked is the most streams that a checkpoint lists.
const maxParked = 1000

// parked is a stream that is not published from a version on.
type parked struct {
	Kind    string     `json:"kind"`
	ID      string     `json:"id"`
	Version es.Version `json:"version"`
	Error   string     `json:"error"`
}

func (p parked) stream() es.Stream { return es.Stream{Kind: p.Kind, ID: p.ID} }

// park adds a stream from a record on.
func (c *checkpoint) park(r *es.Record, cause error) error {
	if len(c.Parked) == maxParked {
		return client.Permanentf("%d streams are parked: %w", maxParked, cause)
	}
	c.Parked = append(c.Parked, parked{Kind: r.Stream.Kind, ID: r.Stream.ID, Version: r.Version, Error: cause.Error()})
	return nil
}

// parkedStreams returns nil if there are none.
func (c *checkpoint) parkedStreams() map[es.Stream]bool {
	if len(c.Parked) == 0 {
		return nil
	}
	streams := make(map[es.Stream]bool, len(c.Parked))
	for _, p := range c.Parked {
		streams[p.stream()] = true
	}
	return streams
}

func (c *checkpoint) parkedAt(stream es.Stream) es.Version {
	for _, p := range c.Parked {
		if p.stream() == stream {
			return p.Version
		}
	}
	return 0
}

func (s *session) showParked() {
	var list []ParkedStream
	for _, p := range s.c.Parked {
		list = append(list, ParkedStream{p.stream(), p.Version, p.Error})
	}
	s.r.Stats.set(func(st *Snapshot) { st.Parked = list })
}

// unpark publishes the parked streams up to the checkpoint, one by one, as far as their records fit now.
func (s *session) unpark(ctx context.Context) error {
	again := s.c.Parked
	for _, p := range again {
		if err := s.unparkStream(ctx, p); err != nil {
			return err
		}
	}
	s.r.log.Info("kafka: relay has retried parked streams", "streams", len(again), "parked", len(s.c.Parked))
	return nil
}

func (s *session) unparkStream(ctx context.Context, p parked) error {
	b := batch{upTo: s.c.Position}
	for r, err := range s.r.Log.Read(ctx, p.stream(), p.Version-1) {
		if err != nil {
			return err
		}
		if r.Position > s.c.Position {
			break // publish reaches it later
		}
		if !s.r.Filter.Match(r) {
			continue
		}
		if len(b.records) > 0 && (len(b.records) >= s.r.Batch || b.bytes+sizeOf(&r) > s.r.pace.bytes()) {
			if err := s.unparkBatch(ctx, p, b, r.Version); err != nil {
				return err
			}
			if at := s.c.parkedAt(p.stream()); at > 0 && at < r.Version {
				return nil // a record still does not fit
			}
			b.records, b.bytes = nil, 0
		}
		b.records = append(b.records, r)
		b.bytes += sizeOf(&r)
	}
	return s.unparkBatch(ctx, p, b, 0)
}

// unparkBatch publishes records of a parked stream. If rest is not 0, the stream stays parked from that version on.
func (s *session) unparkBatch(ctx context.Context, p parked, b batch, rest es.Version) error {
	before := s.c.clone()
	s.c.Parked = slices.DeleteFunc(slices.Clone(s.c.Parked), func(other parked) bool { return other.stream() == p.stream() })
	last := s.c.Last
	if err := s.transactionWith(ctx, b, func(c *checkpoint) {
		c.Last = last // the last in the order of the log
		if rest > 0 && !c.parkedStreams()[p.stream()] {
			p.Version = rest
			c.Parked = append(c.Parked, p)
		}
	}); err != nil {
		s.c = before
		return err
	}
	return nil
}
