package projection

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/internal/progress"
)

// sharedReader lets feeds that partition the same log the same way read it once. The first feed to reach an unread position reads a
// chunk and buffers the other partitions' records. The buffer is bounded; a feed that falls behind it reads the log on its own,
// so feeds never block each other.
//
// A feed gets only records that were read after it was opened, as if it had read them itself. A record is given to one feed only.
type sharedReader struct {
	mu     sync.Mutex
	feeds  map[*logFeed]struct{}
	opened int      // number of feeds ever opened
	kept   []*chunk // for feeds that have not reached them, the oldest first
	scans  []*scan  // not in use, the oldest first
}

const (
	chunkRecords = 2048 // at most
	keptChunks   = 16
	keptBytes    = 8 << 20
)

// chunk is a piece of the log, partitioned. While it is being read, upTo is MaxInt64 and only the reading feed may access parts.
type chunk struct {
	after, upTo es.Position // upTo is 0 if reading failed
	opened      int         // sharedReader.opened when the reading began
	parts       [][]es.Record
	taken       []bool
	bytes       int
	progress    bool          // it ended early, so that the checkpoints move; see progressEvery
	read        chan struct{} // closed when the chunk has been read
}

// scan is an iteration of the log from which chunks are read one after the other.
type scan struct {
	at, head es.Position // its position, and the end of the log when it began
	opened   int         // sharedReader.opened when it began
	next     func() (es.Record, error, bool)
	stop     func()
	cancel   context.CancelFunc
}

func stopAll(over []*scan) {
	for _, t := range over {
		t.stop()
		t.cancel()
	}
}

// share adds a feed to the reader of those that partition the log the same way.
func (s *logSource) share(f *logFeed) {
	key := fmt.Sprintf("%d %s", f.part.Of, canon.Filter(f.filter)) // which has every field of a filter
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shared[key] == nil {
		s.shared[key] = &sharedReader{feeds: make(map[*logFeed]struct{})}
	}
	f.with = s.shared[key]
	f.with.join(f)
	f.unshare = func() {
		s.mu.Lock()
		last, over := f.with.remove(f)
		if last {
			delete(s.shared, key)
		}
		s.mu.Unlock()
		stopAll(over)
	}
}

func (s *sharedReader) join(f *logFeed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	f.opened = s.opened
	s.feeds[f] = struct{}{}
}

// remove reports whether the feed was the last, and returns the scans to stop.
func (s *sharedReader) remove(f *logFeed) (last bool, over []*scan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.feeds, f)
	s.evict()
	return len(s.feeds) == 0, s.surplus()
}

// has reports whether the chunk has, or will have, records that the feed has not taken.
func (c *chunk) has(f *logFeed) bool {
	return f.at < c.upTo && c.opened >= f.opened && !c.taken[f.part.I]
}

// evict drops the chunks that no feed will take, and the oldest if there are too many.
func (s *sharedReader) evict() {
	bytes := 0
	s.kept = slices.DeleteFunc(s.kept, func(c *chunk) bool {
		for f := range s.feeds {
			if c.has(f) {
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

// surplus removes the scans in excess of the number of feeds, for the caller to stop.
func (s *sharedReader) surplus() []*scan {
	n := max(0, len(s.scans)-len(s.feeds))
	over := slices.Clone(s.scans[:n])
	s.scans = slices.Delete(s.scans, 0, n)
	return over
}

// next returns the next chunk of a feed. If it is unread, the feed must read it, from a scan if one is at its beginning.
func (s *sharedReader) next(f *logFeed) (c *chunk, unread bool, on *scan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.kept {
		if c.after <= f.at && c.has(f) && (c.upTo < math.MaxInt64 || f.at < c.after+chunkRecords) {
			return c, false, nil
		}
	}
	c = &chunk{
		after: f.at, upTo: math.MaxInt64, opened: s.opened, parts: make([][]es.Record, f.part.Of), taken: make([]bool, f.part.Of), read: make(chan struct{}),
	}
	s.kept = append(s.kept, c)
	if i := slices.IndexFunc(s.scans, func(t *scan) bool { return t.at == c.after && t.opened == c.opened }); i >= 0 {
		on = s.scans[i]
		s.scans = slices.Delete(s.scans, i, i+1)
	}
	return c, true, on
}

// done publishes a chunk that has been read up to a position, and keeps the reusable scans. It returns the scans to stop.
func (s *sharedReader) done(c *chunk, upTo es.Position, bytes int, reusable ...*scan) (over []*scan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.upTo, c.bytes = upTo, bytes
	close(c.read)
	s.evict()
	s.scans = append(s.scans, reusable...)
	return s.surplus()
}

// take returns the feed's part of a chunk and advances the feed to its end. ok is false if the chunk has nothing for the feed.
func (s *sharedReader) take(f *logFeed, c *chunk) (records []es.Record, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.has(f) {
		return nil, false
	}
	records = c.parts[f.part.I]
	n, _ := slices.BinarySearchFunc(records, f.at+1, func(r es.Record, p es.Position) int { return cmp.Compare(r.Position, p) })
	c.parts[f.part.I], c.taken[f.part.I], f.at = nil, true, c.upTo
	s.evict()
	return records[n:], true
}

// readShared is read for a feed that shares a reader.
func (f *logFeed) readShared(ctx context.Context, head es.Position) (es.Position, error) {
	for f.at < head {
		c, unread, on := f.with.next(f)
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
			if err := f.send(ctx, logPiece{Batch{Records: records, Next: Cursor(f.at), End: Cursor(max(head, f.at))}, c.progress}); err != nil {
				return f.at, err
			}
		}
	}
	return f.at, nil
}

// readChunk reads a chunk from a scan, or from a new one that reaches at least the head.
func (f *logFeed) readChunk(ctx context.Context, c *chunk, t *scan, head es.Position) (err error) {
	if t == nil {
		var reading context.Context
		t = &scan{at: c.after, head: head, opened: c.opened}
		reading, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
		t.next, t.stop = iter.Pull2(f.log.All(progress.Want(reading), c.after, f.filter))
	}
	going := context.AfterFunc(ctx, t.cancel) // a scan outlives the feeds that use it, unless one is closed while reading
	records, bytes, more, began := 0, 0, true, time.Now()
	for records < min(pieceRecords*f.part.Of, chunkRecords) && bytes < pieceBytes && !c.progress {
		var r es.Record
		if r, err, more = t.next(); err != nil || !more {
			break
		}
		if progress.IsMark(&r) {
			t.at, c.progress = r.Position, time.Since(began) >= progressEvery
			continue
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
		stopAll(append(f.with.done(c, upTo, bytes), t))
	} else {
		stopAll(f.with.done(c, upTo, bytes, t))
	}
	return err
}
