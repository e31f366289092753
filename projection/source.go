package projection

import (
	"context"

	"github.com/thalo-go/es"
)

// Cursor is a place in a shard of a [Source]: everything at or before it has been read. In a log it is an [es.Position], in a topic
// an offset. 0 is the beginning.
type Cursor int64

// Source is where projections read records from. [FromLog] makes one of a log; package kafka has one for topics.
// It is not for users to implement: it may gain methods.
//
// A source divides its records into shards. A shard can be read from any cursor, any number of times, with the same result, and
// nothing new ever appears at or before a cursor that was read. All records of a stream are in one shard, in order. The source does
// not assign shards to readers: the database of the read model does, by leases and by a compare-and-set of the checkpoint.
type Source interface {
	// ID identifies the source permanently. A checkpoint of another source is refused. The ID of a log is that of its source.
	ID() string

	// Shards returns the names of the shards. A source that can be divided into any number of partitions returns that many names,
	// the first of four being 0/4. Its cursors must mean the same in every division.
	Shards(ctx context.Context, partitions int) ([]string, error)

	// Feed starts reading a shard after a cursor. For a cursor beyond the end it returns an error that wraps [*es.AheadError].
	// The context limits only the call; the feed lives until Close.
	Feed(ctx context.Context, shard string, after Cursor, filter es.Filter) (Feed, error)
}

// Feed reads one shard of a [Source], from one goroutine. It is not for users to implement: it may gain methods.
type Feed interface {
	// Next returns the next batch, of at most limit records. It waits until there is one or ctx is done.
	//
	// Next also returns a batch without records in two cases: once, if the shard has no records after the starting cursor, so that
	// the reader knows that it has caught up; and when the filter excluded every record, so that the checkpoint can advance.
	// The caller may keep the records. After an error, only Close may be called.
	Next(ctx context.Context, limit int) (Batch, error)

	// Applied reports that everything up to a cursor is in the read model. It is for lag monitoring and must not block.
	Applied(upTo Cursor)

	// Close releases the feed's resources. No other call may be in progress.
	Close() error
}

// Batch is a range of consecutive records of a shard.
type Batch struct {
	Records []es.Record // that the filter lets through; there may be none
	Cursors []Cursor    // the cursor after each record; nil means its Position
	Next    Cursor      // the end of the range, including records that the filter excluded
	End     Cursor      // the end of the shard as far as known; the feed has caught up when Next reaches it
}
