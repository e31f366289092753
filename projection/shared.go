package projection

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
)

// A sharing is what the feeds of one source have together that divide its log alike: what one of them reads, the others need not read again.
// Who comes to a place that is not there reads a chunk, for which he waits for nothing but the log, and keeps for the others what is theirs.
// What is kept is bounded: one that falls so far behind that his part is gone reads for himself. So none is held up by another.
//
// Each feed gets only what was read after it was opened, as if it had done so. A record is given to one feed and to no other.
type sharing struct {
	mu     sync.Mutex
	feeds  map[*logFeed]struct{}
	opened int      // feeds, ever
	kept   []*chunk // for those on their way to it, the oldest first
	trails []*trail // that nobody is on, the oldest first
}

const (
	chunkRecords = 2048 // at most
	keptChunks   = 16
	keptBytes    = 8 << 20
)

// A chunk is a piece of the log, divided. Until it has been read it has no end, and the parts are for him who reads.
type chunk struct {
	after, upTo es.Position // upTo is 0 if it could not be read
	opened      int         // feeds, when its reading began
	parts       [][]es.Record
	taken       []bool
	bytes       int
	read        chan struct{} // closed when it has been
}

// A trail is a read of the log, of which chunks are made one after the other.
type trail struct {
	at, head es.Position // where it is, and what was the end of the log when it began
	opened   int         // feeds, then
	next     func() (es.Record, error, bool)
	stop     func()
	cancel   context.CancelFunc
}

func end(over []*trail) {
	for _, t := range over {
		t.stop()
		t.cancel()
	}
}

// share lets a feed share with those that divide the log alike.
func (s *logSource) share(f *logFeed) {
	key := fmt.Sprintf("%d %q %q", f.part.Of, f.filter.Kinds, f.filter.Types)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared[key] == nil {
		s.shared[key] = &sharing{feeds: make(map[*logFeed]struct{})}
	}
	f.with = s.shared[key]
	f.with.join(f)
	f.leave = func() {
		s.mu.Lock()
		last, over := f.with.remove(f)
		if last {
			delete(s.shared, key)
		}
		s.mu.Unlock()
		end(over)
	}
}

func (s *sharing) join(f *logFeed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	f.opened = s.opened
	s.feeds[f] = struct{}{}
}

// remove tells whether a feed was the last, and returns the trails to be ended.
func (s *sharing) remove(f *logFeed) (last bool, over []*trail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.feeds, f)
	s.tidy()
	return len(s.feeds) == 0, s.surplus()
}

// isFor tells whether a feed has its part in the chunk, now or when it comes there.
func (c *chunk) isFor(f *logFeed) bool {
	return f.at < c.upTo && c.opened >= f.opened && !c.taken[f.part.I]
}

// tidy drops what nobody is on his way to, and what is too much.
func (s *sharing) tidy() {
	bytes := 0
	s.kept = slices.DeleteFunc(s.kept, func(c *chunk) bool {
		for f := range s.feeds {
			if c.isFor(f) {
				bytes += c.bytes
				return false
			}
		}
		return true
	})
	for len(s.kept) > keptChunks || bytes > keptBytes {
		bytes -= s.kept[0].bytes
		s.kept = slices.Delete(s.kept, 0, 1)
	}
}

// surplus takes out the trails of which there are more than feeds, for the caller to end.
func (s *sharing) surplus() []*trail {
	n := max(0, len(s.trails)-len(s.feeds))
	over := slices.Clone(s.trails[:n])
	s.trails = slices.Delete(s.trails, 0, n)
	return over
}

// come returns the chunk to which a feed has come; or one that it is to read, on a trail if there is one.
func (s *sharing) come(f *logFeed) (c *chunk, unread bool, on *trail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.kept {
		if c.after <= f.at && c.isFor(f) && (c.upTo < math.MaxInt64 || f.at < c.after+chunkRecords) {
			return c, false, nil
		}
	}
	c = &chunk{
		after: f.at, upTo: math.MaxInt64, opened: s.opened, parts: make([][]es.Record, f.part.Of), taken: make([]bool, f.part.Of), read: make(chan struct{}),
	}
	s.kept = append(s.kept, c)
	if i := slices.IndexFunc(s.trails, func(t *trail) bool { return t.at == c.after && t.opened == c.opened }); i >= 0 {
		on = s.trails[i]
		s.trails = slices.Delete(s.trails, i, i+1)
	}
	return c, true, on
}

// done makes a chunk known that has been read up to a position, and keeps the trails that go on, if any. It returns those to be ended.
func (s *sharing) done(c *chunk, upTo es.Position, bytes int, goOn ...*trail) (over []*trail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.upTo, c.bytes = upTo, bytes
	close(c.read)
	s.tidy()
	s.trails = append(s.trails, goOn...)
	return s.surplus()
}

// take gives a feed its part of a chunk that has been read, and moves it to the end; unless the chunk does not reach so far.
func (s *sharing) take(f *logFeed, c *chunk) (records []es.Record, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.isFor(f) {
		return nil, false
	}
	records = c.parts[f.part.I]
	n, _ := slices.BinarySearchFunc(records, f.at+1, func(r es.Record, p es.Position) int { return cmp.Compare(r.Position, p) })
	c.parts[f.part.I], c.taken[f.part.I], f.at = nil, true, c.upTo
	s.tidy()
	return records[n:], true
}

// readShared is read for a feed that shares.
func (f *logFeed) readShared(ctx context.Context, head es.Position) (es.Position, error) {
	for f.at < head {
		c, unread, on := f.with.come(f)
		if unread {
			if err := f.readChunk(ctx, c, on, head); err != nil {
				return f.at, err
			}
		}
		select {
		case <-c.read:
		case <-ctx.Done():
			return f.at, ctx.Err()
		}
		if records, ok := f.with.take(f, c); ok {
			if err := f.send(ctx, Batch{Records: records, Next: Cursor(f.at), End: Cursor(max(head, f.at))}); err != nil {
				return f.at, err
			}
		}
	}
	return f.at, nil
}

// readChunk reads a chunk on a trail, or on a new one, which comes at least to the head.
func (f *logFeed) readChunk(ctx context.Context, c *chunk, t *trail, head es.Position) (err error) {
	if t == nil {
		var reading context.Context
		t = &trail{at: c.after, head: head, opened: c.opened}
		reading, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
		t.next, t.stop = iter.Pull2(f.log.All(reading, c.after, f.filter))
	}
	going := context.AfterFunc(ctx, t.cancel) // a trail outlasts those who go on it, but for one who ends on the way
	records, bytes, more := 0, 0, true
	for records < min(pieceRecords*f.part.Of, chunkRecords) && bytes < pieceBytes {
		var r es.Record
		if r, err, more = t.next(); err != nil || !more {
			break
		}
		i := part.Of(r.Stream.String(), f.part.Of).I
		c.parts[i] = append(c.parts[i], r)
		t.at, records, bytes = r.Position, records+1, bytes+len(r.Data)
	}
	upTo := t.at
	switch {
	case err != nil:
		upTo = 0
	case !more:
		upTo = max(t.at, t.head)
	}
	if !going() || !more || err != nil {
		end(append(f.with.done(c, upTo, bytes), t))
	} else {
		end(f.with.done(c, upTo, bytes, t))
	}
	return err
}
