package conformance_test

import (
	"context"
	"errors"

	"github.com/thalo-go/es"
)

const (
	readAfter   = "Read returns the records after a version in order"
	readNothing = "missing stream has no records"
	longStream  = "long stream is read completely and in order"
)

func brokenReads() []defect[es.Log] {
	return []defect[es.Log]{
		broken("Read includes the version to read after", readAfter, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			return m.Read(ctx, stream, max(0, after-1))
		})).noticedBy(longStream, readNothing),
		broken("a stream is read backwards", readAfter, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			return func(yield func(es.Record, error) bool) {
				for version := head(m, stream); version > after; version-- {
					for r, err := range m.Read(ctx, stream, version-1) {
						if !yield(r, err) || err != nil {
							return
						}
						break
					}
				}
			}
		})).noticedBy(versionsDense, longStream, oneWins, oneWinsOverStores, updates, asWritten, typeBytes, dataBytes, retainsNone, callersOwn, withinLimits, badRefused, readObeys, likeRead).blocking(),
		broken("a stream that does not exist is an error", readNothing, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			return func(yield func(es.Record, error) bool) {
				none := after > 0 && stream.Check() == nil && head(m, stream) == 0
				if none {
					yield(es.Record{}, errors.New("no rows in result set"))
					return
				}
				m.Read(ctx, stream, after)(yield)
			}
		})),
		broken("the first record of the second page is lost", longStream, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			return only(m.Read(ctx, stream, after), func(r es.Record) bool { return r.Version != after+1001 })
		})).noticedBy(withinLimits),
	}
}
