package kafka

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

func (c checkpoint) clone() checkpoint {
	c.Topics = maps.Clone(c.Topics)
	c.Parked = slices.Clone(c.Parked)
	return c
}

// park leaves out a stream from a record on.
func (c *checkpoint) park(r *es.Record, cause error) error {
	const most = 1000
	if len(c.Parked) == most {
		return client.Permanentf("%d streams are parked: %w; raise max.message.bytes of the topics they go to and start the relay again", most, cause)
	}
	c.Parked = append(c.Parked, parked{Kind: r.Stream.Kind, ID: r.Stream.ID, Version: r.Version, Error: cause.Error()})
	return nil
}

func (c *checkpoint) parkedStreams() map[es.Stream]bool {
	streams := make(map[es.Stream]bool, len(c.Parked))
	for _, p := range c.Parked {
		streams[p.stream()] = true
	}
	return streams
}

func (s *session) showParked() {
	if len(s.c.Parked) == 0 {
		s.w.r.stats.set(func(st *RelayStats) { st.Parked = nil })
		return
	}
	list := make([]ParkedStream, 0, len(s.c.Parked))
	for _, p := range s.c.Parked {
		list = append(list, ParkedStream{p.stream(), p.Version, p.Error})
	}
	s.w.r.stats.set(func(st *RelayStats) { st.Parked = list })
}

// unpark publishes what is parked, up to the checkpoint, stream by stream, as far as it fits now.
func (s *session) unpark(ctx context.Context) error {
	again := s.c.Parked
	for _, p := range again {
		if err := s.unparkStream(ctx, p); err != nil {
			return err
		}
	}
	s.w.r.log.Info("kafka: relay has tried again what was parked", "streams", len(again), "parked", len(s.c.Parked))
	return nil
}

func (s *session) unparkStream(ctx context.Context, p parked) error {
	b := batch{upTo: s.c.Position}
	bytes := 0
	for r, err := range s.w.r.Log.Read(ctx, p.stream(), p.Version-1) {
		if err != nil {
			return err
		}
		if r.Position > s.c.Position {
			break // the reader comes to it
		}
		if !s.w.r.Filter.Match(r) {
			continue
		}
		if len(b.records) > 0 && (len(b.records) >= cmp.Or(s.w.r.Batch, DefaultRelayBatch) || bytes+len(r.Data) > cmp.Or(s.w.r.Bytes, DefaultRelayBytes)) {
			if err := s.unparkBatch(ctx, p, b, r.Version); err != nil {
				return err
			}
			if s.c.parkedStreams()[p.stream()] && s.parkedAt(p.stream()) < r.Version {
				return nil // it does not fit yet
			}
			b.records, bytes = nil, 0
		}
		b.records = append(b.records, r)
		bytes += len(r.Data)
	}
	return s.unparkBatch(ctx, p, b, 0)
}

// unparkBatch publishes records of a parked stream, which stays parked from a version on if there are more.
func (s *session) unparkBatch(ctx context.Context, p parked, b batch, rest es.Version) error {
	before := s.c.clone()
	s.c.Parked = slices.DeleteFunc(slices.Clone(s.c.Parked), func(other parked) bool { return other.stream() == p.stream() })
	last := s.c.Last
	if err := s.transactionWith(ctx, b, func(c *checkpoint) {
		c.Last = last // that of the log's order
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

func (s *session) parkedAt(stream es.Stream) es.Version {
	for _, p := range s.c.Parked {
		if p.stream() == stream {
			return p.Version
		}
	}
	return 0
}
