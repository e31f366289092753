package kafka

import (
	"context"
	"log/slog"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/kafka/internal/client"
	"github.com/thalo-go/es/kafka/internal/feed"
	"github.com/thalo-go/es/projection"
)

// SourceConfig is the settings of a [Source].
type SourceConfig struct {
	Cluster Cluster

	// Topics are the topics to read. They must exist. Another topic makes another source: raise the projection's Version.
	Topics []string

	// Stores are the ids of the expected stores. A record of another store ends the run. Empty means that all records of
	// a partition must be of one store, whichever it is.
	Stores []string

	// Oldest lets a new read model begin with the oldest record that exists. Otherwise it is an error if retention has
	// deleted the first records, because the read model would lack them.
	Oldest bool

	// SkipForeign skips messages of other producers: those without any header of a relay, such as a tombstone. They are counted
	// in [SourceStats] and logged, at most once a minute. Otherwise the first one that Filter does not exclude ends the run, after
	// the records before it. A message with some headers of a relay that is not a record is damaged, and always ends the run.
	SkipForeign bool

	// AllowCompacted lets the source read compacted topics, of which the cluster deletes all records of a stream but the last. Otherwise
	// they are refused, also while feeds are open.
	AllowCompacted bool

	// Deduplicate drops the duplicates that a relay with AtLeastOnce may write. It is exact if one relay of each store
	// writes to the topic, if messages have the time of their record (message.timestamp.type=CreateTime), and if retention
	// has not deleted the first of two while the second is unread. It costs two requests to the broker when a feed starts.
	Deduplicate bool

	// Group is a consumer group to which progress is committed now and then, for tools that show lag. "" means none.
	// Nothing reads these offsets. No consumer may use the group.
	Group string

	// Logger receives librdkafka's log. nil discards it.
	Logger *slog.Logger
}

// Source reads topics as a [projection.Source]: each partition is a shard. A read model in another database is updated
// exactly once, because the checkpoint of each shard, which is its next offset, moves in the read model's transaction.
//
// No consumer group is involved: the database of the read model assigns the partitions. All methods may be called from
// several goroutines.
type Source struct {
	source *feed.Source
}

var _ projection.Source = (*Source)(nil)

// Open connects to the cluster and looks up the topics. The caller must close the source after everything that reads it
// has ended. The error wraps [es.ErrInvalid] for invalid settings, and is a [*NoTopicError] if a topic does not exist.
func (c SourceConfig) Open(ctx context.Context) (_ *Source, err error) {
	defer cause.Set(ctx, &err)
	if len(c.Topics) == 0 {
		return nil, client.Invalid("a source has no Topics: set those to read")
	}
	s, err := feed.Open(ctx, feed.Config{
		Client: c.Cluster.client(), Topics: c.Topics, Stores: c.Stores, Oldest: c.Oldest, Compacted: c.AllowCompacted, SkipForeign: c.SkipForeign, Deduplicate: c.Deduplicate,
		Group: c.Group, Log: client.Logger(c.Logger),
	})
	if err != nil {
		return nil, err
	}
	return &Source{s}, nil
}

// ID implements [projection.Source]. It contains the names, ids and numbers of partitions of the topics. So a checkpoint
// is refused if a topic was deleted and created again, or has grown, which may put the records of a stream in two partitions.
func (s *Source) ID() string { return s.source.ID() }

// Shards implements [projection.Source]. The shards are the partitions, such as bank.account/0.
func (s *Source) Shards(ctx context.Context, partitions int) (_ []string, err error) {
	defer cause.Set(ctx, &err)
	return s.source.Shards(ctx, partitions)
}

// Feed implements [projection.Source]. It waits up to a minute for a cluster that does not answer.
func (s *Source) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (_ projection.Feed, err error) {
	defer cause.Set(ctx, &err)
	return s.source.Feed(ctx, shard, after, filter)
}

// Close closes the source. Its feeds must be closed first.
func (s *Source) Close() error { return s.source.Close() }

// SourceStats is the state of an open feed of a [Source].
type SourceStats struct {
	Shard   string `json:"shard"`
	Read    int64  `json:"read"`    // the offset up to which the feed has read
	Applied int64  `json:"applied"` // the offset up to which the read model has applied; 0 if nothing was applied since the feed opened
	Lag     *Lag   `json:"lag"`     // from Applied, or from where the feed began, to the end
	Dropped int64  `json:"dropped"` // duplicates
	Foreign int64  `json:"foreign"` // messages of other producers that were skipped

	Error   string    `json:"error,omitempty"` // the last error of the connection to the cluster that the source recovered from or still retries
	ErrorAt time.Time `json:"errorAt,omitzero"`
}

// Stats returns the state of the feeds that are open in this process, sorted by shard.
func (s *Source) Stats() []SourceStats {
	var all []SourceStats
	for _, f := range s.source.Stats() {
		all = append(all, SourceStats{f.Shard, f.Read, f.Applied, lagOf(&f.Lag), f.Dropped, f.Foreign, f.Error, f.ErrorAt})
	}
	return all
}
