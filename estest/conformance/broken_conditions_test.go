package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

const (
	tagSets            = "tags are stored as a sorted set and belong to the caller"
	tagUntagged        = "an event without tags is refused where its kind has tags"
	tagOlder           = "conditions and filters by tag wait for the tags of older events"
	tagFilters         = "a filter by tags selects the records that have all of them"
	conditionExact     = "a condition fails if a record after its position matches a filter"
	conditionRewound   = "a condition after the end of the log reports a lost history"
	conditionQuestion  = "an append without events asks whether conditions hold"
	conditionDuplicate = "a repeated command is a duplicate although its condition fails"
	conditionOwnCall   = "records of a call do not fail its own conditions"
	conditionRace      = "one of 16 writers on one condition wins"
	conditionRaceApart = "one of 64 writers on one condition wins through several stores"
	conditionSkew      = "two writers cannot skew a rule over two tags"
	conditionTypes     = "conditions on types that share a tag do not conflict"
	conditionPairs     = "a record and a condition that it breaks are not both accepted"
	conditionVerdicts  = "the verdicts of racing conditions are those of a full scan"
	transactSum        = "transactions over two streams keep the sum"
	transactSkew       = "transactions cannot skew a rule over two streams"
	transactOnce       = "a repeated transaction has its first outcome on every stream"
	transactSeats      = "a transaction over a stream and a decision is written by one call"
)

func TestEveryDefectOfConditionsIsCaughtByItsClause(t *testing.T) {
	defects := slices.Concat(brokenTags(), brokenConditions(), brokenConditionRaces(), brokenTransactions())
	for i := range defects {
		defects[i].also = append(slices.Clone(defects[i].also), tagOlder) // most of them do without what AddTags needs
	}
	catch(t, defects, conformance.ConditionClauses(), conformance.Clause.TryLog)
}

// without returns appends with conditions changed.
func without(appends []es.Append, change func(a *es.Append)) []es.Append {
	appends = slices.Clone(appends)
	for i := range appends {
		change(&appends[i])
	}
	return appends
}

func unchecked(a *es.Append) { a.Unless = es.Condition{} }

// failedCondition returns the conflict of the first condition that fails, by a check of its own.
func failedCondition(m *es.Mem, appends []es.Append, until es.Position, match func(f es.Filter, r es.Record) bool) error {
	for _, a := range appends {
		if duplicate(m, a) != nil {
			return nil
		}
		if len(a.Unless.Match) == 0 || a.Unless.After > lastOf(m) {
			continue
		}
		for r, err := range m.All(context.Background(), a.Unless.After, es.Filter{}) {
			if err != nil {
				return err
			}
			if r.Position > until {
				break
			}
			for _, f := range a.Unless.Match {
				if match(f, r) {
					return &es.ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: a.Unless}
				}
			}
		}
	}
	return nil
}

func lastOf(m *es.Mem) es.Position {
	head, _ := es.Head(context.Background(), m)
	return head
}

func brokenTags() []defect[es.Log] {
	return []defect[es.Log]{
		broken("tags have the order of the argument", tagSets, recording(func(r es.Record) es.Record { slices.Reverse(r.Tags); return r })).noticedBy(),
		broken("tags are lost where a record is read by its stream", tagSets, reading(func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records {
			return changed(m.Read(ctx, stream, after), func(r es.Record) es.Record { r.Tags = nil; return r })
		})),
		broken("the tags of the argument are sorted in place", tagSets, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			for _, a := range appends {
				for _, e := range a.Events {
					slices.Sort(e.Tags)
				}
			}
			return m.Append(ctx, appends...)
		})),
		broken("events without tags are accepted everywhere", tagUntagged, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			if errors.Is(err, es.ErrInvalid) && appends[0].Stream.Check() == nil {
				for i := range appends {
					appends[i].Stream.Kind = "untagged"
				}
				return m.Append(ctx, appends...)
			}
			return position, err
		})).noticedBy(tagOlder),
		broken("older events without tags do not count", tagOlder, listing(func(ctx context.Context, m *es.Mem, after es.Position, f es.Filter) records {
			tags := f.Tags
			f.Tags = nil
			return only(m.All(ctx, after, f), func(r es.Record) bool { return es.Filter{Tags: tags}.Match(r) })
		})),
		broken("one of the tags of a filter is enough", tagFilters, listing(func(ctx context.Context, m *es.Mem, after es.Position, f es.Filter) records {
			tags := f.Tags
			f.Tags = nil
			return only(m.All(ctx, after, f), func(r es.Record) bool {
				return len(tags) == 0 || slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(r.Tags, tag) })
			})
		})),
		broken("a filter by tags ignores its types", tagFilters, listing(func(ctx context.Context, m *es.Mem, after es.Position, f es.Filter) records {
			if len(f.Tags) > 0 {
				f.Types = nil
			}
			return m.All(ctx, after, f)
		})),
		broken("tags are searched in a joined text", tagFilters, listing(func(ctx context.Context, m *es.Mem, after es.Position, f es.Filter) records {
			tags := f.Tags
			f.Tags = nil
			return only(m.All(ctx, after, f), func(r es.Record) bool {
				text := "\x1f" + strings.Join(r.Tags, "\x1f") + "\x1f"
				return !slices.ContainsFunc(tags, func(tag string) bool { return !strings.Contains(text, "\x1f"+tag+"\x1f") })
			})
		})),
	}
}

func brokenConditions() []defect[es.Log] {
	everywhere := []string{transactSeats, transactOnce, conditionQuestion, conditionDuplicate, conditionOwnCall, conditionRace, conditionRaceApart, conditionSkew, conditionTypes, conditionPairs, conditionVerdicts, conditionRewound, conditionExact}
	// conflicts returns a log whose conflicts of conditions are changed.
	conflicts := func(change func(err error, c *es.ConflictError) error) func(*es.Mem) *faulty {
		return appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var c *es.ConflictError
			if errors.As(err, &c) && len(c.Unless.Match) > 0 {
				err = change(err, c)
			}
			return position, err
		})
	}
	before := func(change func(a *es.Append)) func(*es.Mem) *faulty {
		return appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			return m.Append(ctx, without(appends, change)...)
		})
	}
	return []defect[es.Log]{
		broken("conditions are ignored", conditionExact, before(unchecked)).noticedBy(everywhere...),
		broken("the record at the position counts", conditionExact, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
				mu.Lock()
				defer mu.Unlock()
				early := without(appends, func(a *es.Append) { a.Unless.After = max(a.Unless.After-1, 0) })
				if err := failedCondition(m, early, math.MaxInt64, es.Filter.Match); err != nil {
					for _, a := range appends {
						if len(a.Unless.Match) > 0 {
							return 0, &es.ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: a.Unless}
						}
					}
				}
				return m.Append(ctx, appends...)
			}}
		}).noticedBy(everywhere...),
		broken("only the first filter of a condition counts", conditionExact, before(func(a *es.Append) { a.Unless.Match = a.Unless.Match[:min(1, len(a.Unless.Match))] })).noticedBy(everywhere...),
		broken("the error does not name the condition", conditionExact, conflicts(func(_ error, c *es.ConflictError) error {
			return &es.ConflictError{Stream: c.Stream, Expected: c.Expected}
		})).noticedBy(everywhere...),
		broken("a position beyond the end is never reached", conditionRewound, conflicts(func(err error, c *es.ConflictError) error {
			if errors.Is(err, es.ErrRewound) {
				return c
			}
			return err
		})),
		broken("a condition beyond the end holds", conditionRewound, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			return m.Append(ctx, without(appends, func(a *es.Append) {
				if a.Unless.After > lastOf(m) {
					a.Unless = es.Condition{}
				}
			})...)
		})),
		broken("conditions without events are not asked", conditionQuestion, before(func(a *es.Append) {
			if len(a.Events) == 0 {
				a.Unless = es.Condition{}
			}
		})),
		broken("a condition is checked before the command", conditionDuplicate, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			position, err := m.Append(ctx, appends...)
			var d *es.DuplicateError
			if errors.As(err, &d) && len(appends[0].Unless.Match) > 0 {
				err = &es.ConflictError{Stream: d.Stream, Expected: appends[0].Expected, Unless: appends[0].Unless}
			}
			return position, err
		})),
		broken("records of the call count", conditionOwnCall, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			var own []es.Record
			for _, a := range appends {
				for _, r := range own {
					for _, f := range a.Unless.Match {
						if f.Match(r) {
							return 0, &es.ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: a.Unless}
						}
					}
				}
				for _, e := range a.Events {
					e.Stream = a.Stream
					own = append(own, e)
				}
			}
			return m.Append(ctx, appends...)
		})),
	}
}

// checksConditionsFirst is a store that checks conditions by a function of its own and then writes, both under the lock that lock returns, if any.
func checksConditionsFirst(m *es.Mem, lock func(appends []es.Append) sync.Locker, match func(f es.Filter, r es.Record) bool) *faulty {
	return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) {
		if l := lock(appends); l != nil {
			l.Lock()
			defer l.Unlock()
		}
		if len(appends) != 1 || len(appends[0].Unless.Match) == 0 || appends[0].Unless.After > lastOf(m) {
			return m.Append(ctx, appends...)
		}
		if err := failedCondition(m, appends, math.MaxInt64, match); err != nil {
			return 0, err
		}
		window()
		return m.Append(ctx, without(appends, unchecked)...)
	}}
}

func brokenConditionRaces() []defect[es.Log] {
	none := func([]es.Append) sync.Locker { return nil }
	races := []string{transactSeats, conditionRace, conditionRaceApart, conditionSkew, conditionPairs, conditionVerdicts}
	return []defect[es.Log]{
		broken("a condition is checked, and then the records are written", conditionRace, func(m *es.Mem) *faulty {
			return checksConditionsFirst(m, none, es.Filter.Match)
		}).noticedBy(races...),
		brokenApart("conditions are guarded by a lock in the store and not in the database", conditionRaceApart, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return checksConditionsFirst(m, func([]es.Append) sync.Locker { return &mu }, es.Filter.Match)
		}).noticedBy(conditionSkew, conditionVerdicts),
		broken("a lock for each tag that is written", conditionSkew, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			locks := make(map[string]*sync.Mutex)
			return checksConditionsFirst(m, func(appends []es.Append) sync.Locker {
				mu.Lock()
				defer mu.Unlock()
				key := fmt.Sprint(appends[0].Stream)
				if a := appends[0]; len(a.Events) > 0 && len(a.Events[0].Tags) > 0 {
					key = slices.Max(a.Events[0].Tags)
				}
				if locks[key] == nil {
					locks[key] = new(sync.Mutex)
				}
				return locks[key]
			}, es.Filter.Match)
		}).noticedBy(conditionPairs, conditionVerdicts),
		broken("a version for each tag", conditionTypes, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return checksConditionsFirst(m, func([]es.Append) sync.Locker { return &mu }, func(f es.Filter, r es.Record) bool { return es.Filter{Tags: f.Tags}.Match(r) })
		}).noticedBy(conditionExact, conditionVerdicts),
		broken("appends without a condition take no lock", conditionPairs, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return checksConditionsFirst(m, func(appends []es.Append) sync.Locker {
				if len(appends[0].Unless.Match) == 0 {
					return nil
				}
				return &mu
			}, es.Filter.Match)
		}).noticedBy(conditionVerdicts),
		broken("tags that begin alike count as equal", conditionVerdicts, func(m *es.Mem) *faulty {
			var mu sync.Mutex
			return checksConditionsFirst(m, func([]es.Append) sync.Locker { return &mu }, func(f es.Filter, r es.Record) bool {
				tags := f.Tags
				f.Tags = nil
				return f.Match(r) && !slices.ContainsFunc(tags, func(tag string) bool {
					return !slices.ContainsFunc(r.Tags, func(has string) bool { return strings.HasPrefix(has, tag) })
				})
			})
		}),
	}
}

func brokenTransactions() []defect[es.Log] {
	calls := func(change func(appends []es.Append)) func(*es.Mem) *faulty {
		return appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error) {
			appends = slices.Clone(appends)
			if len(appends) > 1 {
				change(appends)
			}
			return m.Append(ctx, appends...)
		})
	}
	return []defect[es.Log]{
		broken("the appends of a call are written one by one", transactSum, appending(func(ctx context.Context, m *es.Mem, appends []es.Append) (last es.Position, err error) {
			if err := es.CheckAppends(appends...); err != nil {
				return 0, err
			}
			for _, a := range appends {
				position, err := m.Append(ctx, a)
				if err != nil {
					return 0, err
				}
				last = max(last, position)
			}
			return last, nil
		})).noticedBy(transactSkew, transactOnce, transactSeats, conditionQuestion, conditionOwnCall, conditionExact, tagUntagged),
		broken("a question about a version is not asked in a call with events", transactSkew, calls(func(appends []es.Append) {
			for i := range appends {
				if len(appends[i].Events) == 0 && len(appends[i].Unless.Match) == 0 {
					appends[i].Expected = es.AnyVersion
				}
			}
		})).noticedBy(conditionQuestion),
		broken("a command is recorded on the first stream of a call", transactOnce, calls(func(appends []es.Append) {
			seen := false
			for i := range appends {
				if seen {
					appends[i].Command = ""
				}
				seen = seen || len(appends[i].Events) > 0
			}
		})).noticedBy(transactSum),
		broken("a condition is not checked in a call with versions", transactSeats, calls(func(appends []es.Append) {
			if slices.ContainsFunc(appends, func(a es.Append) bool { return a.Expected != es.AnyVersion && len(a.Events) > 0 }) {
				for i := range appends {
					unchecked(&appends[i])
				}
			}
		})),
	}
}
