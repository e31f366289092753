package estest_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

const (
	readAfter     = "Read returns the records after a version, in order"
	readNothing   = "a stream that does not exist has no records"
	longStream    = "a long stream is read whole and in order"
	readHolds     = "nothing is held while the body of a Read loop runs"
	readAgain     = "ranging over a Read again reads again"
	readReleases  = "leaving a Read loop releases everything"
	readObeys     = "Read stops with an error when its context ends"
	allHolds      = "nothing is held while the body of an All loop runs"
	allAgain      = "ranging over an All again reads again"
	allReleases   = "leaving an All loop releases everything"
	allObeys      = "All stops with an error when its context ends"
	followsAll    = "a follower sees every position once and in order while writers race"
	followsFilter = "a follower with a filter sees all that it lets through"
)

// brokenReads has the defects of loops: most of them are tried on Read and on All.
func brokenReads() []defect[es.Log] {
	defects := []defect[es.Log]{
		broken("the version to read after is read too", readAfter, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
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
		})).noticedBy(versionsDense, longStream, oneWins, oneWinsOverStores, updates, asWritten, typeBytes, dataBytes, keepsNothing, callersOwn, withinLimits, badRefused, readObeys, likeRead).blocking(),
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
	defects = append(defects, brokenLoops("Read", readHolds, readAgain, readReleases, readObeys, func(f *faulty, around func(context.Context, records) records) {
		f.onRead = func(ctx context.Context, stream es.Stream, after es.Version) records {
			return around(ctx, f.Mem.Read(ctx, stream, after))
		}
	})...)
	return append(defects, brokenLoops("All", allHolds, allAgain, allReleases, allObeys, func(f *faulty, around func(context.Context, records) records) {
		f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
			return around(ctx, f.Mem.All(ctx, after, filter))
		}
	})...)
}

// brokenLoops has the defects that a loop over Read can have as well as one over All. put puts something around the loops of a log.
func brokenLoops(name, holds, again, releases, obeys string, put func(f *faulty, around func(context.Context, records) records)) []defect[es.Log] {
	around := func(do func(ctx context.Context, loop records) records) func(m *es.Mem) *faulty {
		return func(m *es.Mem) *faulty {
			f := &faulty{Mem: m}
			put(f, do)
			return f
		}
	}
	return []defect[es.Log]{
		broken(name+" holds a lock while the body runs", holds, func(m *es.Mem) *faulty {
			var mu sync.RWMutex
			f := &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock()
				defer mu.Unlock()
				return m.Append(ctx, appends...)
			}}
			put(f, func(_ context.Context, loop records) records {
				return func(yield func(es.Record, error) bool) {
					mu.RLock()
					defer mu.RUnlock()
					loop(yield)
				}
			})
			return f
		}).blocking(),
		broken(name+" holds one of 10 connections while the body runs", holds, func(m *es.Mem) *faulty {
			f := &faulty{Mem: m}
			pool := make(chan struct{}, 10)
			put(f, func(ctx context.Context, loop records) records {
				return pooled(ctx, pool, loop, func() { <-pool })
			})
			return f
		}).blocking(),
		broken(name+" reads when it is called and not when it is ranged over", again, around(func(_ context.Context, loop records) records {
			var read []es.Record
			var broken error
			for r, err := range loop {
				if read, broken = append(read, r), err; err != nil {
					break
				}
			}
			return func(yield func(es.Record, error) bool) {
				for i, r := range read {
					var err error
					if i == len(read)-1 {
						err = broken
					}
					if !yield(r, err) {
						return
					}
				}
			}
		})).noticedBy(obeys),
		broken(name+" keeps a connection when the loop is left", releases, func(m *es.Mem) *faulty {
			f := &faulty{Mem: m}
			pool := make(chan struct{}, 60)
			put(f, func(ctx context.Context, loop records) records {
				return pooled(ctx, pool, loop, func() {})
			})
			return f
		}).blocking(),
		broken(name+" leaves a goroutine behind when the loop is left", releases, around(func(ctx context.Context, loop records) records {
			return func(yield func(es.Record, error) bool) {
				type item struct {
					es.Record
					error
				}
				items := make(chan item)
				go func() {
					defer close(items)
					for r, err := range loop {
						select {
						case items <- item{r, err}:
						case <-ctx.Done(): // it must not be in the way of other tests for ever
							select {
							case items <- item{es.Record{}, ctx.Err()}:
							case <-time.After(time.Second):
							}
							return
						}
					}
				}()
				for i := range items {
					if !yield(i.Record, i.error) {
						return
					}
				}
			}
		})).blocking().byItself(),
		broken(name+" does not look at its context", obeys, func(m *es.Mem) *faulty {
			f := &faulty{Mem: m}
			put(f, func(_ context.Context, loop records) records { return loop })
			onRead, onAll := f.onRead, f.onAll
			if onRead != nil {
				f.onRead = func(ctx context.Context, stream es.Stream, after es.Version) records {
					return onRead(context.WithoutCancel(ctx), stream, after)
				}
			}
			if onAll != nil {
				f.onAll = func(ctx context.Context, after es.Position, filter es.Filter) records {
					return onAll(context.WithoutCancel(ctx), after, filter)
				}
			}
			return f
		}),
		broken(name+" ends without an error when its context does", obeys, around(func(ctx context.Context, loop records) records {
			return func(yield func(es.Record, error) bool) {
				for r, err := range loop {
					if ctx.Err() != nil || !yield(r, err) {
						return
					}
				}
			}
		})),
		broken(name+" gives the last record beside the error", obeys, around(func(_ context.Context, loop records) records {
			return func(yield func(es.Record, error) bool) {
				var last es.Record
				for r, err := range loop {
					if err == nil {
						last = r
					}
					if !yield(last, err) {
						return
					}
				}
			}
		})),
		broken(name+" gives the error twice", obeys, around(func(ctx context.Context, loop records) records {
			return func(yield func(es.Record, error) bool) {
				for r, err := range loop {
					if !yield(r, err) || err != nil && !yield(r, err) {
						return
					}
				}
			}
		})),
	}
}

// pooled takes a connection of a pool for a loop and gives it back at its end, or when it is left.
func pooled(ctx context.Context, pool chan struct{}, loop records, left func()) records {
	return func(yield func(es.Record, error) bool) {
		select {
		case pool <- struct{}{}:
		case <-ctx.Done():
			yield(es.Record{}, ctx.Err())
			return
		}
		ended := false
		defer func() {
			if ended {
				<-pool
			} else {
				left()
			}
		}()
		for r, err := range loop {
			if !yield(r, err) {
				return
			}
		}
		ended = true
	}
}
