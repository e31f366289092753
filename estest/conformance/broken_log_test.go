package conformance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
)

const (
	allAfter    = "All returns the records after a position in order"
	likeRead    = "All and Read return equal records"
	filters     = "All returns exactly what its filter matches"
	filterBytes = "filters compare names byte by byte"
	longLog     = "long log is read completely and in order"
)

func brokenLogs() []defect[es.Log] {
	return []defect[es.Log]{
		broken("All includes the position to read after", allAfter, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return m.All(ctx, max(0, after-1), filter)
		})).noticedBy(longLog, filters, followsAll, followsFilter),
		broken("the log is read stream by stream", allAfter, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return func(yield func(es.Record, error) bool) {
				var all []es.Record
				for r, err := range m.All(ctx, after, filter) {
					if err != nil {
						yield(r, err)
						return
					}
					all = append(all, r)
				}
				slices.SortStableFunc(all, func(a, b es.Record) int { return strings.Compare(a.Stream.String(), b.Stream.String()) })
				for _, r := range all {
					if ctx.Err() != nil {
						yield(es.Record{}, ended(ctx))
						return
					}
					if !yield(r, nil) {
						return
					}
				}
			}
		})).noticedBy(filters, longLog, followsAll, readable),
		broken("All has no metadata", likeRead, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return changed(m.All(ctx, after, filter), func(r es.Record) es.Record { r.Meta = nil; return r })
		})),
		broken("All has times in seconds", likeRead, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return changed(m.All(ctx, after, filter), func(r es.Record) es.Record { r.Time = r.Time.Truncate(time.Second); return r })
		})),
	}
}

func brokenFilters() []defect[es.Log] {
	filtered := func(match func(f es.Filter, r es.Record) bool) func(*es.Mem) *faulty {
		return listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return only(m.All(ctx, after, es.Filter{}), func(r es.Record) bool { return match(filter, r) })
		})
	}
	in := func(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }
	return []defect[es.Log]{
		broken("the filter is ignored", filters, filtered(func(es.Filter, es.Record) bool { return true })).
			noticedBy(filterBytes, longLog, followsFilter),
		broken("a filter with a kind and a type matches either", filters, filtered(func(f es.Filter, r es.Record) bool {
			return f.Match(r) || len(f.Kinds) > 0 && len(f.Types) > 0 && (in(f.Kinds, r.Stream.Kind) || in(f.Types, r.Type))
		})),
		broken("only the first kind of a filter counts", filters, filtered(func(f es.Filter, r es.Record) bool {
			return in(f.Kinds[:min(1, len(f.Kinds))], r.Stream.Kind) && in(f.Types, r.Type)
		})).noticedBy(filterBytes),
		broken("a filter without a match returns all records", filters, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			for r, err := range m.All(ctx, 0, filter) {
				if r.Position > 0 || err != nil {
					return m.All(ctx, after, filter)
				}
			}
			return m.All(ctx, after, es.Filter{})
		})).noticedBy(filterBytes),
		broken("filters ignore case", filterBytes, filtered(func(f es.Filter, r es.Record) bool {
			alike := func(list []string, name string) bool {
				return len(list) == 0 || slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
			}
			return alike(f.Kinds, r.Stream.Kind) && alike(f.Types, r.Type)
		})),
		broken("a filter that is not text is an error", filterBytes, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			for _, name := range slices.Concat(filter.Kinds, filter.Types) {
				if strings.ContainsRune(name, 0) {
					return func(yield func(es.Record, error) bool) {
						yield(es.Record{}, errors.New("invalid byte sequence for encoding UTF8: 0x00"))
					}
				}
			}
			return m.All(ctx, after, filter)
		})),
		broken("a page without matching records is taken for the end", longLog, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return func(yield func(es.Record, error) bool) {
				const page = 200
				seen := after // the last position of the last page that was not empty
				for r, err := range m.All(ctx, after, filter) {
					if err == nil && r.Position > seen+page || !yield(r, err) {
						return
					}
					seen = r.Position
				}
			}
		})),
		broken("the first record of the second page is lost", longLog, listing(func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records {
			return only(m.All(ctx, after, filter), func(r es.Record) bool { return r.Position != after+1001 })
		})),
	}
}
