package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

const (
	versionsDense   = "versions count from 1 without a gap"
	positionsDense  = "positions count from 1 without a gap"
	lastPosition    = "Append returns the position of its last record"
	nothingIsZero   = "empty append returns position 0"
	emptyAsks       = "append without events only checks the version"
	staleIsConflict = "wrong expected version is a conflict"
	anyAppends      = "AnyVersion appends at any version"
	expectedCounts  = "Expected counts earlier appends of the same call"
	firstNamed      = "error names the first refused append of a call"
	allOrNothing    = "Append is atomic"
	placeIgnored    = "Append sets stream, version, position and time"
	times           = "times are UTC microseconds and never decrease"
	contextEnded    = "append with an ended context writes nothing"
	contextNamed    = "error names the end of the caller's own context"
	contextEnds     = "append whose context ends in flight reports its outcome"
)

func brokenAppends() []defect[es.Log] {
	return []defect[es.Log]{
		broken("a refused call uses up a version of another stream", versionsDense, leavesGaps(func(appends []es.Append) es.Stream {
			if len(appends) < 2 {
				return es.Stream{} // invalid, so that no gap is left
			}
			return appends[0].Stream
		})).noticedBy(positionsDense, allOrNothing),
		broken("a refused call uses up a position", positionsDense, leavesGaps(func([]es.Append) es.Stream {
			return es.Stream{Kind: "hidden", ID: "gap"}
		})).noticedBy(waits),
		broken("the position of the first record is returned", lastPosition, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			for _, a := range appends {
				position -= es.Position(len(a.Events))
			}
			return position + 1, err
		})).noticedBy(nothingIsZero),
		broken("an append of nothing returns the head", nothingIsZero, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			if position == 0 && err == nil {
				return es.Head(ctx, m)
			}
			return position, err
		})),
		broken("an append without events is not checked", emptyAsks, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if len(appends) == 1 && len(appends[0].Events) == 0 {
				return 0, nil
			}
			return m.Append(ctx, appends...)
		})).noticedBy(duplicateBeforeConflict, commandWithoutEvents),
	}
}

func brokenExpectations() []defect[es.Log] {
	return []defect[es.Log]{
		broken("a conflict is a plain error", staleIsConflict, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			if isConflict(err) {
				err = errors.New("wrong version")
			}
			return position, err
		})).noticedBy(firstNamed, expectedCounts, oneWins, oneWinsOverStores),
		broken("a conflict names the current version", staleIsConflict, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var conflict *es.ConflictError
			if errors.As(err, &conflict) {
				err = &es.ConflictError{Stream: conflict.Stream, Expected: head(m, conflict.Stream)}
			}
			return position, err
		})).noticedBy(oneWins, oneWinsOverStores),
		broken("AnyVersion loses a race", anyAppends, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if len(appends) == 1 && appends[0].Expected == es.AnyVersion && appends[0].Command == "" && wouldSucceed(m, appends) {
				a := appends[0]
				a.Expected = head(m, a.Stream)
				window()
				return m.Append(ctx, a)
			}
			return m.Append(ctx, appends...)
		})),
		broken("Expected of later appends of a call is ignored", expectedCounts, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			appends = slices.Clone(appends)
			seen := make(map[es.Stream]bool)
			for i, a := range appends {
				if seen[a.Stream] {
					appends[i].Expected = es.AnyVersion
				}
				seen[a.Stream] = true
			}
			return m.Append(ctx, appends...)
		})),
		broken("Expected is compared with the version before the call", expectedCounts, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			for _, a := range appends {
				if a.Expected > es.AnyVersion && a.Stream.Check() == nil && duplicate(m, a) == nil && a.Expected != head(m, a.Stream) {
					return 0, &es.ConflictError{Stream: a.Stream, Expected: a.Expected}
				}
			}
			return m.Append(ctx, appends...)
		})).noticedBy(firstNamed),
		broken("the error names the later of two conflicts in a call", firstNamed, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			for _, a := range appends {
				if isConflict(err) && a.Expected > es.AnyVersion && a.Expected != head(m, a.Stream) {
					err = &es.ConflictError{Stream: a.Stream, Expected: a.Expected}
				}
			}
			return position, err
		})),
		broken("a duplicate is reported before an earlier conflict", firstNamed, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			for _, a := range appends {
				if d := duplicate(m, a); d != nil && a.Stream.Check() == nil {
					return 0, d
				}
			}
			return m.Append(ctx, appends...)
		})),
		broken("the appends before the refused one are written", allOrNothing, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock()
				defer mu.Unlock()
				return oneByOne(ctx, m, appends)
			}}
		}).noticedBy(losersWriteNothing, commandRefused),
	}
}

func brokenTimes() []defect[es.Log] {
	return []defect[es.Log]{
		broken("a record keeps the time of the argument", placeIgnored, func(m *es.Mem) *faulty {
			var given table[time.Time]
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				position, err := m.Append(ctx, appends...)
				for _, a := range appends {
					for i, e := range a.Events {
						if err == nil && !e.Time.IsZero() {
							e.Stream, e.Version = a.Stream, head(m, a.Stream)-es.Version(len(a.Events)-1-i)
							given.put(e.ID(), e.Time)
						}
					}
				}
				return position, err
			}, onRecord: func(r es.Record) es.Record {
				if t, found := given.get(r.ID()); found {
					r.Time = t
				}
				return r
			}}
		}),
		broken("times decrease", times, recording(func(r es.Record) es.Record {
			r.Time = r.Time.Add(-time.Duration(r.Position%2) * time.Minute)
			return r
		})),
		broken("times are in another zone", times, recording(func(r es.Record) es.Record {
			r.Time = r.Time.In(time.FixedZone("here", 3600))
			return r
		})),
		broken("times have nanoseconds", times, recording(func(r es.Record) es.Record {
			r.Time = r.Time.Add(time.Nanosecond)
			return r
		})),
		broken("an ended context is ignored", contextEnded, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			return m.Append(context.WithoutCancel(ctx), appends...)
		})).noticedBy(contextNamed),
		broken("a deadline is reported as a cancellation", contextNamed, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			if errors.Is(err, context.DeadlineExceeded) {
				err = context.Canceled
			}
			return position, err
		})),
		broken("the cause of a cancellation is dropped", contextNamed, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			if errors.Is(err, context.Canceled) {
				err = context.Canceled
			}
			return position, err
		})),
		broken("an append that was written returns the context's error", contextEnds, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if err := ended(ctx); err != nil {
				return 0, err
			}
			window()
			position, err := m.Append(context.WithoutCancel(ctx), appends...)
			return position, errors.Join(err, ended(ctx))
		})),
		broken("an append is half written when its context ends", contextEnds, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			if err := ended(ctx); err != nil {
				return 0, err
			}
			window()
			if err := ended(ctx); err != nil {
				_, _ = m.Append(context.WithoutCancel(ctx), appends[0])
				return 0, fmt.Errorf("%w: %w", es.ErrUnknownOutcome, err)
			}
			return m.Append(ctx, appends...)
		})),
	}
}

// leavesGaps returns a log in which every refused call leaves a hidden record in a stream.
func leavesGaps(where func(appends []es.Append) es.Stream) func(m *es.Mem) *faulty {
	seen := func(r es.Record) bool { return r.Type != "gap" }
	return func(m *es.Mem) *faulty {
		return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			if err != nil {
				_, _ = m.Append(context.WithoutCancel(ctx), es.Append{Stream: where(appends), Expected: es.AnyVersion, Events: []es.Record{{Type: "gap"}}})
			}
			return position, err
		}, onRead: func(ctx context.Context, stream es.Stream, after es.Version) records {
			return only(m.Read(ctx, stream, after), seen)
		}, onAll: func(ctx context.Context, after es.Position, filter es.Filter) records {
			return only(m.All(ctx, after, filter), seen)
		}}
	}
}
