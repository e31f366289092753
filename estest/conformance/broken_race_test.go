package conformance_test

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/thalo-go/es"
)

const (
	oneWins            = "one writer wins a race and the others get a conflict"
	oneWinsOverStores  = "one writer wins a race through several stores"
	losersWriteNothing = "lost race writes nothing"
	updates            = "no update is lost"
	standTogether      = "records of one call have consecutive positions"
	seeEachOther       = "acknowledged appends are visible through every store"
)

func brokenRaces() []defect[es.Log] {
	return []defect[es.Log]{
		broken("a lost race is reported as a success", oneWins, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if wouldSucceed(m, appends) {
				window()
				appends = atAnyVersion(appends)
			}
			return m.Append(ctx, appends...)
		})).noticedBy(oneWinsOverStores, updates),
		broken("a lost race is reported as the database's error", oneWins, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			fine := wouldSucceed(m, appends)
			window()
			position, err := m.Append(ctx, appends...)
			if fine && isConflict(err) {
				err = errors.New("UNIQUE constraint failed: events.stream, events.version")
			}
			return position, err
		})).noticedBy(oneWinsOverStores),
		brokenApart("the version is guarded by a lock in the store and not in the database", oneWinsOverStores, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock()
				defer mu.Unlock()
				if wouldSucceed(m, appends) {
					window()
					appends = atAnyVersion(appends)
				}
				return m.Append(ctx, appends...)
			}}
		}).noticedBy(updates),
		broken("the appends before the lost race are written", losersWriteNothing, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				if !wouldSucceed(m, appends) {
					return m.Append(ctx, appends...)
				}
				window()
				mu.Lock()
				defer mu.Unlock()
				return oneByOne(ctx, m, appends)
			}}
		}),
		brokenApart("a store trusts the version in its cache", updates, remembersHeads).noticedBy(oneWinsOverStores, seeEachOther),
		brokenApart("a store queries the database only for streams that are not in its cache", seeEachOther, remembersHeads).noticedBy(oneWinsOverStores, updates),
		broken("another call is written between the records of one", standTogether, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if !wouldSucceed(m, appends) || slices.ContainsFunc(appends, func(a es.Append) bool { return a.Expected != es.AnyVersion }) {
				return m.Append(ctx, appends...)
			}
			return oneByOne(ctx, m, appends)
		})),
		broken("the records of one call are sorted by stream", standTogether, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			appends = slices.Clone(appends)
			slices.SortStableFunc(appends, func(a, b es.Append) int {
				switch {
				case a.Stream.String() < b.Stream.String():
					return -1
				case a.Stream.String() > b.Stream.String():
					return 1
				}
				return 0
			})
			return m.Append(ctx, appends...)
		})).noticedBy(firstNamed, longLog),
	}
}

// remembersHeads is a store that reads the version of a stream once and counts on its own from then on.
func remembersHeads(m *es.Mem) *faulty {
	var mu sync.Mutex
	var heads table[es.Version]
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		if len(appends) != 1 || appends[0].Command != "" || len(appends[0].Events) == 0 {
			return m.Append(ctx, appends...)
		}
		mu.Lock()
		defer mu.Unlock()
		a := appends[0]
		if known, found := heads.get(a.Stream.String()); found && known == a.Expected {
			a.Expected = es.AnyVersion
		}
		window()
		position, err := m.Append(ctx, a)
		if err == nil && appends[0].Expected != es.AnyVersion {
			heads.put(a.Stream.String(), appends[0].Expected+es.Version(len(a.Events)))
		}
		return position, err
	}}
}
