package projection

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/internal/progress"
)

// FromLog returns a log as a [Source], such as the log of another store. Its partitions divide the streams by a hash of their names
// (FNV-1a) that never changes. Each feed reads ahead in its own goroutine. Feeds of one source at about the same position
// read the log once for all of them.
func FromLog(log es.Log) Source { return &logSource{log: log, shared: make(map[string]*sharedReader)} }

type logSource struct {
	log    es.Log
	mu     sync.Mutex
	shared map[string]*sharedReader // by how they partition the log
}

// Log returns the log, for readers that need more than a feed.
func (s *logSource) Log() es.Log { return s.log }

// ID implements [Source].
func (s *logSource) ID() string { return s.log.ID() }

// Shards implements [Source].
func (s *logSource) Shards(_ context.Context, partitions int) ([]string, error) {
	return part.Names(partitions), nil
}

// Feed implements [Source].
func (s *logSource) Feed(ctx context.Context, shard string, after Cursor, filter es.Filter) (Feed, error) {
	p, err := part.Parse(shard)
	if err != nil {
		return nil, fmt.Errorf("es: %w: %w", es.ErrInvalid, err)
	}
	head, err := es.Head(ctx, s.log)
	if err != nil {
		return nil, err
	}
	if es.Position(after) > head {
		return nil, fmt.Errorf("es: shard %s: %w", shard, &es.AheadError{After: es.Position(after), Head: head})
	}
	f := &logFeed{log: s.log, part: p, filter: filter, pieces: make(chan logPiece, aheadPieces), ended: make(chan struct{}), unshare: func() {}, at: es.Position(after)}
	if p.Of > 1 {
		s.share(f)
	}
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go f.run(ctx, es.Position(after), head)
	return f, nil
}

// Limits of the pieces of a log that a feed reads, of the number that it reads ahead, and of a batch.
const (
	pieceRecords = 256
	pieceBytes   = 1 << 20
	aheadPieces  = 6
	batchBytes   = 8 << 20
)

// progressEvery is how often a feed hands out what it has while the filter excludes nearly every record, so that the checkpoint moves and a
// reader that is interrupted need not begin again.
const progressEvery = time.Second

// logPiece is a batch as it is read. If it is progress, Next does not wait for more.
type logPiece struct {
	Batch
	progress bool
}

// logFeed reads one partition of a log.
type logFeed struct {
	log     es.Log
	with    *sharedReader // shared with the feeds of the other partitions; nil if there are none
	unshare func()        // leaves the sharedReader
	at      es.Position   // the records up to here have been taken from the sharedReader
	opened  int           // sharedReader.opened when this feed was opened
	part    part.Part
	filter  es.Filter
	pieces  chan logPiece
	left    Batch // the rest of a piece that exceeded the limit
	cancel  context.CancelFunc
	ended   chan struct{} // closed when run has returned
	err     error         // of run; valid after ended is closed
}

// run reads the log, piece by piece, until the feed is closed.
func (f *logFeed) run(ctx context.Context, after, head es.Position) {
	defer close(f.ended)
	defer f.unshare()
	if after == head && f.send(ctx, logPiece{Batch: Batch{Next: Cursor(after), End: Cursor(head)}}) != nil {
		return
	}
	for f.err == nil {
		if head, f.err = f.log.Changed(ctx, after); f.err == nil {
			after, f.err = f.read(ctx, after, head)
		}
	}
}

// read reads what is there, at least up to the given head, and returns the position reached.
func (f *logFeed) read(ctx context.Context, after, head es.Position) (es.Position, error) {
	if f.part.Of > 1 {
		return f.readShared(ctx, head)
	}
	var records []es.Record
	bytes, sent := 0, time.Now()
	for r, err := range f.log.All(progress.Want(ctx), after, f.filter) {
		if err != nil {
			return after, err
		}
		after = r.Position
		due := false
		if progress.IsMark(&r) {
			due = time.Since(sent) >= progressEvery
		} else {
			records = append(records, r)
			bytes += len(r.Data)
		}
		if due || len(records) == pieceRecords || bytes >= pieceBytes {
			if err := f.send(ctx, logPiece{Batch{Records: records, Next: Cursor(after), End: Cursor(max(head, after))}, due}); err != nil {
				return after, err
			}
			records, bytes, sent = make([]es.Record, 0, pieceRecords), 0, time.Now()
		}
	}
	after = max(after, head)
	return after, f.send(ctx, logPiece{Batch: Batch{Records: records, Next: Cursor(after), End: Cursor(after)}})
}

func (f *logFeed) send(ctx context.Context, p logPiece) error {
	select {
	case f.pieces <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Next implements [Feed]. Before the end of the log it waits until the batch is full.
func (f *logFeed) Next(ctx context.Context, limit int) (b Batch, err error) {
	for bytes := 0; ; {
		piece := logPiece{Batch: f.left}
		f.left = Batch{}
		if len(piece.Records) == 0 {
			if piece, err = f.piece(ctx); err != nil {
				return Batch{}, err
			}
		}
		n := 0
		for n < len(piece.Records) && len(b.Records) < limit && bytes < batchBytes {
			bytes += len(piece.Records[n].Data)
			b.Records = append(b.Records, piece.Records[n])
			n++
		}
		b.Next, b.End = piece.Next, piece.End
		if n < len(piece.Records) {
			f.left = Batch{Records: piece.Records[n:], Next: piece.Next, End: piece.End}
			b.Next = Cursor(piece.Records[n].Position - 1)
			return b, nil
		}
		if piece.progress || len(b.Records) >= limit || bytes >= batchBytes || b.Next >= b.End {
			return b, nil
		}
	}
}

func (f *logFeed) piece(ctx context.Context) (logPiece, error) {
	select {
	case p := <-f.pieces:
		return p, nil
	default:
	}
	select {
	case p := <-f.pieces:
		return p, nil
	case <-f.ended:
		select {
		case p := <-f.pieces: // sent before run returned
			return p, nil
		default:
			return logPiece{}, f.err
		}
	case <-ctx.Done():
		return logPiece{}, ctx.Err()
	}
}

// Applied implements [Feed]. It does nothing.
func (f *logFeed) Applied(Cursor) {}

// Close implements [Feed].
func (f *logFeed) Close() error {
	f.cancel()
	<-f.ended
	return nil
}
