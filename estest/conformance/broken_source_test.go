package conformance_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
)

type fed = conformance.SourceUnderTest[*sql.Tx]

// fed returns the source of a log in memory and a database in memory for read models.
func (w workshop) fed(source func(projection.Source) projection.Source) fed {
	log, side := new(es.Mem), w.open(":memory:")
	return fed{
		Log:    log,
		Source: func() projection.Source { return source(projection.FromLog(log)) },
		Side:   func() conformance.ReadSide[*sql.Tx] { return side },
		Lists:  side.Lists(),
	}
}

func TestSourceOfALog(t *testing.T) {
	conformance.TestSource(t, func(t *testing.T) fed {
		return workshop{t}.fed(func(s projection.Source) projection.Source { return s })
	})
}

// The clauses of [conformance.TestSource].
const (
	feedsAll      = "feeds return every record once and each stream in order"
	feedsFrom     = "feed starts after its cursor"
	feedsFiltered = "feed returns what its filter matches and passes the rest"
	feedsEnd      = "feed at the end reports it and then waits"
	feedsAhead    = "cursor beyond the end is refused"
	sourceIsSame  = "ID and shards are stable"
	feedsModel    = "read model survives restarts and failures"
	feedsWorkers  = "two workers divide the source"
	feedsNothing  = "read model catches up with an empty source"
	feedsParked   = "failing record is isolated and parked"
	feedsAnew     = "rebuilt read model starts from the beginning"
	feedsReaction = "reaction gets every record and resumes at its checkpoint"
)

func TestEveryDefectOfASourceIsCaughtByItsClause(t *testing.T) {
	w := workshop{t}
	broken := func(name, clause string, source func(projection.Source) projection.Source) defect[fed] {
		return defect[fed]{name: name, clause: clause, narrow: true, database: func() func() fed {
			f := w.fed(source)
			return func() fed { return f }
		}}
	}
	defects := slices.Concat(brokenFeeds(broken), brokenReopenings(broken), []defect[fed]{
		broken("the ID changes", sourceIsSame, func(s projection.Source) projection.Source {
			id := rand.Text()
			return &faultySource{Source: s, onID: func() string { return id }}
		}),
		broken("the shards change", sourceIsSame, func(s projection.Source) projection.Source {
			name := rand.Text()
			return &faultySource{Source: s, onShards: func(names []string) []string { return append(names, name) }}
		}),
	})
	catch(t, defects, conformance.SourceClauses(), conformance.Clause.TrySource)
}

type breaking = func(name, clause string, source func(projection.Source) projection.Source) defect[fed]

func brokenFeeds(broken breaking) []defect[fed] {
	batches := func(change func(b *projection.Batch)) func(projection.Source) projection.Source {
		return func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onNext: func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error) {
				b, err := f.Next(ctx, most)
				if err == nil {
					change(&b)
				}
				return b, err
			}}
		}
	}
	return []defect[fed]{
		broken("a batch is reversed", feedsAll, batches(func(b *projection.Batch) {
			cursors := make([]projection.Cursor, len(b.Records))
			for i, r := range b.Records {
				cursors[i] = projection.Cursor(r.Position)
			}
			b.Cursors = cursors
			slices.Reverse(b.Records)
		})),
		broken("a batch repeats a record instead of its last", feedsAll, batches(func(b *projection.Batch) {
			if n := len(b.Records); n > 1 {
				b.Records[n-1] = b.Records[n-2]
			}
		})),
		broken("times are lost", feedsAll, batches(func(b *projection.Batch) {
			for i := range b.Records {
				b.Records[i].Time = time.Time{}
			}
		})),
		broken("the filter is ignored", feedsFiltered, func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onFeed: func(ctx context.Context, s projection.Source, shard string, after projection.Cursor, _ es.Filter) (projection.Feed, error) {
				return s.Feed(ctx, shard, after, es.Filter{})
			}}
		}),
		broken("the cursor does not pass excluded records", feedsFiltered, batches(func(b *projection.Batch) {
			if n := len(b.Records); n > 0 {
				b.Next = projection.Cursor(b.Records[n-1].Position)
			} else {
				b.Next--
			}
		})).blocking(),
		broken("the end is not reported", feedsEnd, silent).blocking(),
		broken("Next does not wait at the end", feedsEnd, func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onNext: func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error) {
				brief, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				defer cancel()
				b, err := f.Next(brief, most)
				if ctx.Err() == nil && err != nil {
					return projection.Batch{Next: 1 << 40, End: 1 << 40}, nil
				}
				return b, err
			}}
		}),
		broken("an empty source is not reported", feedsNothing, silent).blocking(),
		broken("all records of a batch have its last cursor", feedsParked, batches(func(b *projection.Batch) {
			b.Cursors = slices.Repeat([]projection.Cursor{b.Next}, len(b.Records))
		})).blocking(),
	}
}

func brokenReopenings(broken breaking) []defect[fed] {
	feeding := func(from func(after projection.Cursor) projection.Cursor) func(projection.Source) projection.Source {
		return func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onFeed: func(ctx context.Context, s projection.Source, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
				return s.Feed(ctx, shard, from(after), filter)
			}}
		}
	}
	shifted := func(by projection.Cursor) func(projection.Source) projection.Source {
		return feeding(func(after projection.Cursor) projection.Cursor {
			if after == 0 || after%5 == 0 && by > 0 { // this may be the end
				return after
			}
			return after + by
		})
	}
	restarted := feeding(func(projection.Cursor) projection.Cursor { return 0 })
	var feeds atomic.Int32
	return []defect[fed]{
		broken("a reopened feed skips a record", feedsFrom, shifted(1)),
		broken("a reopened feed repeats a record", feedsFrom, shifted(-1)),
		broken("a reopened feed restarts", feedsFrom, restarted),
		broken("a cursor beyond the end restarts the feed", feedsAhead, feeding(func(after projection.Cursor) projection.Cursor {
			if after > 1000 {
				return 0
			}
			return after
		})),
		broken("a read model skips a record after a restart", feedsModel, shifted(1)).blocking(),
		broken("a read model repeats a record after a restart", feedsModel, shifted(-1)),
		broken("a read model repeats all records after a restart", feedsModel, restarted),
		broken("a worker that takes over restarts at the beginning", feedsWorkers, restarted),
		broken("a second reading does not start at the beginning", feedsAnew, feeding(func(after projection.Cursor) projection.Cursor {
			if after == 0 && feeds.Add(1) > 1 {
				return 1
			}
			return after
		})).blocking(),
		broken("a reaction restarts at the beginning", feedsReaction, restarted).blocking(),
	}
}
