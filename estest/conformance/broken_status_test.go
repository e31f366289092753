package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

const (
	foreignLog     = "records may come from another log"
	otherSource    = "checkpoint of another source is refused"
	beyondTheEnd   = "checkpoint beyond the end of the source is refused"
	sourceFails    = "failed source is retried"
	ownShards      = "every shard of a source is followed"
	waitsUntil     = "WaitFor waits until the position is applied"
	waitTimesOut   = "WaitFor reports the position reached when its context ends"
	waitsForStart  = "WaitFor waits for a projection that is about to start"
	waitsForOld    = "WaitFor follows the version that has caught up"
	statusLag      = "Status has the lag and the worker"
	reactsToAll    = "reaction gets every record in order"
	reactionGoesOn = "reaction resumes at its checkpoint"
	reactionStops  = "failing reaction stops before its record"
	reactionParks  = "reaction parks and retries failing records"
	whyHalted      = "Why names what keeps a projection from working"
	whyLags        = "Why tells a projection that advances from one that does not"
	whyWaits       = "Why names shards that are waited for, and timers"
	runsOnce       = "run with Once returns when nothing is left to do"
)

// shiftAfterFailure returns a source whose next feed after a failure starts so far after the checkpoint.
func shiftAfterFailure(by projection.Cursor) func(projection.Source) projection.Source {
	return func(s projection.Source) projection.Source {
		var failed atomic.Bool
		return &faultySource{Source: s,
			onFeed: func(ctx context.Context, s projection.Source, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
				from := after
				if failed.Load() {
					from += by
				}
				feed, err := s.Feed(ctx, shard, from, filter)
				if err == nil {
					failed.Store(false)
				}
				return feed, err
			},
			onNext: func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error) {
				b, err := f.Next(ctx, most)
				if err != nil {
					failed.Store(true)
				}
				return b, err
			},
		}
	}
}

func (w workshop) brokenSources() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("Source is ignored", foreignLog, sourcing(func(projection.Source) projection.Source { return nil })).blocking(),
		w.broken("the lag of another log is computed with the head of the store's log", foreignLog, reporting(func(s *projection.Status) {
			if s.Lag == nil {
				s.Lag = &projection.Lag{Head: 7}
			}
		})),
		w.broken("checkpoints do not store their source", otherSource, sourcing(func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onID: func() string { return "the source" }}
		})).blocking(),
		w.broken("a checkpoint of another source is an untyped error", otherSource, failing(untyped)),
		w.broken("a checkpoint beyond the end restarts at the beginning", beyondTheEnd, sourcing(func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onFeed: func(ctx context.Context, s projection.Source, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error) {
				feed, err := s.Feed(ctx, shard, after, filter)
				if ahead := (*es.AheadError)(nil); errors.As(err, &ahead) {
					return s.Feed(ctx, shard, 0, filter)
				}
				return feed, err
			}}
		})).blocking(),
		w.broken("a checkpoint beyond the end is an untyped error", beyondTheEnd, failing(untyped)),
		w.broken("a record is skipped after a failure of the source", sourceFails, sourcing(shiftAfterFailure(1))),
		w.broken("a record is repeated after a failure of the source", sourceFails, sourcing(shiftAfterFailure(-1))),
		w.broken("Status has no errors of the source", sourceFails, reporting(func(s *projection.Status) { s.Error = "" })).blocking(),
		w.broken("only the first shard of a source is followed", ownShards, sourcing(func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onShards: func(names []string) []string { return names[:1] }}
		})).blocking(),
		w.broken("positions are taken for cursors", ownShards, sourcing(func(s projection.Source) projection.Source {
			return &faultySource{Source: s, onNext: func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error) {
				b, err := f.Next(ctx, most)
				b.Cursors = nil
				return b, err
			}}
		})).blocking(),
	}
}

// explaining changes what Why returns.
func explaining(change func(c *projection.Cause)) func(*faultySide) {
	return func(f *faultySide) {
		f.onWhy = func(c projection.Cause) projection.Cause {
			change(&c)
			return c
		}
	}
}

// waitingUntil changes what WaitFor waits for.
func waitingUntil(done func(all []projection.Status, position es.Position) bool) func(*faultySide) {
	return func(f *faultySide) {
		f.onWait = func(ctx context.Context, name string, position es.Position) error {
			for {
				all, err := f.Store.Status(ctx)
				if err != nil {
					return err
				}
				if done(slices.DeleteFunc(all, func(s projection.Status) bool { return s.Name != name }), position) {
					return nil
				}
				time.Sleep(time.Millisecond) // there is no notification
			}
		}
	}
}

func (w workshop) brokenAnswers() []defect[conformance.Listed] {
	changing := func(change func(ctx context.Context, err error) error) func(*faultySide) {
		return func(f *faultySide) {
			f.onWait = func(ctx context.Context, name string, position es.Position) error {
				return change(ctx, f.Store.WaitFor(ctx, name, position))
			}
		}
	}
	return []defect[conformance.Listed]{
		w.broken("WaitFor does not wait", waitsUntil, waitingUntil(func([]projection.Status, es.Position) bool { return true })),
		w.broken("WaitFor waits for the first shard only", waitsUntil, waitingUntil(func(all []projection.Status, position es.Position) bool {
			return all[0].Cursor >= projection.Cursor(position)
		})),
		w.broken("WaitFor returns nil when its context ends", waitTimesOut, changing(func(ctx context.Context, err error) error {
			if ctx.Err() == nil {
				return err
			}
			return nil
		})),
		w.broken("WaitFor does not report the position", waitTimesOut, changing(func(ctx context.Context, err error) error {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			return err
		})).blocking(),
		w.broken("WaitFor refuses a projection that has not started", waitsForStart, func(f *faultySide) {
			f.onWait = func(ctx context.Context, name string, position es.Position) error {
				all, err := f.Store.Status(ctx)
				if err == nil && !slices.ContainsFunc(all, func(s projection.Status) bool { return s.Name == name }) {
					return fmt.Errorf("%s does not exist: %w", name, es.ErrInvalid)
				}
				return f.Store.WaitFor(ctx, name, position)
			}
		}),
		w.broken("WaitFor returns nil when a projection starts", waitsForStart, func(f *faultySide) {
			f.onWait = func(ctx context.Context, name string, position es.Position) error {
				for ctx.Err() == nil {
					all, err := f.Store.Status(ctx)
					if err == nil && len(all) > 0 {
						return nil
					}
				}
				return fmt.Errorf("%s does not exist: %w", name, ended(ctx))
			}
		}),
		w.broken("WaitFor does not report that a projection does not exist", waitsForStart, changing(func(ctx context.Context, err error) error {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			return err
		})).blocking(),
		w.broken("WaitFor follows the highest version", waitsForOld, waitingUntil(func(all []projection.Status, position es.Position) bool {
			return all[len(all)-1].Cursor >= projection.Cursor(position)
		})).blocking(),
		w.broken("Why does not name the record", whyHalted, explaining(func(c *projection.Cause) {
			if c.Code == projection.CauseStopped {
				c.Message = "stopped"
			}
		})),
		w.broken("Why takes every error for a fault of the database", whyHalted, explaining(func(c *projection.Cause) {
			if c.Code == projection.CauseFailing || c.Code == projection.CauseSource {
				c.Code = projection.CauseDatabase
			}
		})).blocking(),
		w.broken("Why does not say how long it takes", whyLags, explaining(func(c *projection.Cause) { c.Left = 0 })),
		w.broken("Why takes a handler that stands still for one that advances", whyLags, explaining(func(c *projection.Cause) {
			if c.Code == projection.CauseHandling {
				c.Code = projection.CauseCatchingUp
			}
		})).blocking(),
		w.broken("Why has a remedy where nothing is wrong", whyWaits, explaining(func(c *projection.Cause) {
			if c.Code == projection.CauseNotDue {
				c.Remedy = "restart it"
			}
		})),
		w.broken("the lag is counted from the beginning of the log", statusLag, reporting(func(s *projection.Status) { s.Lag.Positions = int64(s.Lag.Head) })),
		w.broken("the age of the lag is always 0", statusLag, reporting(func(s *projection.Status) { s.Lag.Age = 0 })),
		w.broken("the time of the last record is missing", statusLag, reporting(func(s *projection.Status) { s.Time = time.Time{} })),
		w.broken("a stopped worker is still reported", statusLag, reporting(func(s *projection.Status) {
			if s.Worker == "" {
				s.Worker = "worker"
			}
		})),
		w.broken("shards are sorted as text", statusLag, func(f *faultySide) {
			f.onStatus = func(all []projection.Status) []projection.Status {
				slices.SortFunc(all, func(a, b projection.Status) int {
					if a.Name+a.Shard < b.Name+b.Shard {
						return -1
					}
					return 1
				})
				return all
			}
		}),
	}
}

// reacting changes how a reaction is called.
func reacting(do func(ctx context.Context, r es.Record, next func(context.Context, es.Record) error) error) func(*faultySide) {
	return func(f *faultySide) {
		f.onReact = func(ctx context.Context, r projection.Reaction) error {
			next := r.Handle
			r.Handle = func(ctx context.Context, r es.Record) error { return do(ctx, r, next) }
			return f.Store.React(ctx, r)
		}
	}
}

func (w workshop) brokenReactions() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("the last record of a batch is skipped", reactsToAll, reacting(func(ctx context.Context, r es.Record, next func(context.Context, es.Record) error) error {
			if r.Position%1000 == 0 {
				return nil
			}
			return next(ctx, r)
		})),
		w.broken("a reaction restarts at the beginning", reactionGoesOn, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				if err := f.Store.Forget(ctx, r.Name, 0); err != nil && !errors.Is(err, es.ErrInvalid) {
					return err
				}
				return f.Store.React(ctx, r)
			}
		}),
		w.broken("records before a failure are repeated", reactionStops, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				err := f.Store.React(ctx, r)
				if ctx.Err() == nil {
					err = errors.Join(err, f.Store.Forget(ctx, r.Name, 0))
				}
				return err
			}
		}),
		w.broken("an error of a reaction is ignored", reactionStops, reacting(func(ctx context.Context, r es.Record, next func(context.Context, es.Record) error) error {
			_ = next(ctx, r)
			return nil
		})).blocking(),
		w.broken("a reaction does not park", reactionParks, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				r.OnError = es.Stop
				return f.Store.React(ctx, r)
			}
		}).blocking(),
		w.broken("Once returns at once", runsOnce, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if p.Once {
					return nil
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("Once does not wait for what is due", runsOnce, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				if r.Once {
					r.Now = nil
				}
				return f.Store.React(ctx, r)
			}
		}),
		w.broken("Once does not end", runsOnce, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				r.Once = false
				return f.Store.React(ctx, r)
			}
		}).blocking(),
		w.broken("Retry of a reaction skips the first record", reactionParks, func(f *faultySide) { f.onRetry = f.Store.Drop }),
	}
}
