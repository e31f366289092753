package conformance_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

const (
	appliesOnce    = "projection applies every record once and in order"
	resumes        = "projection resumes at its checkpoint"
	atomically     = "failed handler leaves no writes"
	inBatches      = "batch has 1 to Batch records"
	filtered       = "filter selects records and the checkpoint passes the rest"
	preparesFirst  = "Prepare runs once before the first record"
	prepareFails   = "failed Prepare leaves nothing behind"
	emptyLog       = "projection catches up with an empty log"
	caughtUpOnce   = "OnCaughtUp runs once after the existing records"
	caughtUpFails  = "error of OnCaughtUp ends the run"
	progress       = "OnProgress reports transactions one at a time"
	endsByContext  = "cancelled run returns after its handlers"
	invalidRefused = "invalid projection is refused"
	manyWorkers    = "several workers apply every record once"
	fairShares     = "shards are divided evenly"
	handsOver      = "stopped worker hands over at once"
	leaseExpires   = "dead worker is replaced when its lease expires"
	repartitioned  = "partitions can be changed while it runs"
	emptyShards    = "there may be more partitions than streams"
	retried        = "failed handler is retried"
	unavailable    = "ErrUnavailable is retried indefinitely"
	stopsBefore    = "failing record stops the projection before it"
	resumesFixed   = "stopped projection resumes once the handler is fixed"
	othersContinue = "stopped projection does not stop the others"
	panicIsError   = "panic in Handle is an error with its stack"
	panicBeside    = "panic in Prepare, OnCaughtUp or OnProgress is an error"
	statusError    = "Status has the error until it is fixed"
	unknownLeft    = "unknown event type is left to a worker that knows it"
	unknownNamed   = "Status names the event type that no worker knows"
	unknownReacted = "reaction leaves unknown event types to a worker that knows them"
	unknownRetried = "Retry is left to a worker that knows the event type"
	unknownStops   = "unknown event type stops a projection if no worker knows it"
)

func TestEveryDefectOfAProjectionIsCaughtByItsClause(t *testing.T) {
	w := workshop{t}
	defects := slices.Concat(w.brokenApplying(), w.brokenPrepares(), w.brokenRuns(), w.brokenWorkers(), w.brokenErrors(), w.brokenPanics(), w.brokenUnknown(),
		w.brokenParking(), w.brokenRequests(), w.brokenRebuilds(), w.brokenSources(), w.brokenAnswers(), w.brokenReactions(), w.brokenIdentities(), w.brokenSteps(), w.brokenTimers())
	catch(t, defects, conformance.ProjectionClauses(), conformance.Clause.TryProjections)
}

func (w workshop) brokenApplying() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("the last record of a full batch is skipped", appliesOnce, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return next(ctx, tx, records[:min(len(records), 1000-1)])
		})),
		w.broken("the records of a batch are reversed", appliesOnce, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			records = slices.Clone(records)
			slices.Reverse(records)
			return next(ctx, tx, records)
		})),
		w.broken("the first record of a batch is applied twice", appliesOnce, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return errors.Join(next(ctx, tx, records[:1]), next(ctx, tx, records))
		})),
		w.broken("a projection restarts at the beginning", resumes, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if f.Store.Forget(ctx, p.Name, p.Version) == nil {
					p.Prepare = nil
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("the first batch after a start is skipped", resumes, projecting(func(p *sqlite.Projection) {
			first, next := true, p.Handle
			p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				if first {
					first = false
					return nil
				}
				return next(ctx, tx, records)
			}
		})),
		w.broken("the writes of a failed handler are committed", atomically, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				next := p.Handle
				p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
					err := next(ctx, tx, records)
					if err != nil {
						_, failed := tx.ExecContext(ctx, "update es_shards set cursor = ? where name = ?", int64(records[0].Position)-1, p.Name)
						err = errors.Join(err, failed, tx.Commit())
					}
					return err
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("Batch is ignored", inBatches, projecting(func(p *sqlite.Projection) { p.Batch = 0 })),
		w.broken("a handler is called with no records", inBatches, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return errors.Join(next(ctx, tx, nil), next(ctx, tx, records))
		})),
		w.broken("Filter is ignored", filtered, projecting(func(p *sqlite.Projection) { p.Filter = es.Filter{} })),
		w.broken("the types of Filter are ignored", filtered, projecting(func(p *sqlite.Projection) { p.Filter.Types = nil })),
		w.broken("excluded records do not move the checkpoint", filtered, sourcing(silent)).blocking(),
	}
}

func (w workshop) brokenPrepares() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("Prepare runs at every start", preparesFirst, projecting(func(p *sqlite.Projection) {
			started, next := false, p.Handle
			p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				if !started {
					started = true
					if err := p.Prepare(ctx, tx); err != nil {
						return err
					}
				}
				return next(ctx, tx, records)
			}
		})),
		w.broken("Prepare is not called", preparesFirst, projecting(func(p *sqlite.Projection) { p.Prepare = nil })).blocking(),
		w.broken("a failed Prepare is committed", prepareFails, projecting(func(p *sqlite.Projection) {
			next := p.Prepare
			p.Prepare = func(ctx context.Context, tx *sql.Tx) error {
				err := next(ctx, tx)
				if err != nil {
					err = errors.Join(err, tx.Commit())
				}
				return err
			}
		})).blocking(),
		w.broken("an error of Prepare is ignored", prepareFails, projecting(func(p *sqlite.Projection) {
			next := p.Prepare
			p.Prepare = func(ctx context.Context, tx *sql.Tx) error {
				_ = next(ctx, tx)
				return nil
			}
		})).blocking(),
	}
}

func (w workshop) brokenRuns() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("an empty log is not reported as caught up", emptyLog, sourcing(silent)).blocking(),
		w.broken("OnCaughtUp runs after the first transaction", caughtUpOnce, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				called, up := false, p.OnCaughtUp
				p.OnCaughtUp = nil
				p.OnProgress = func(projection.Progress) {
					if !called {
						called = true
						if err := up(ctx); err != nil {
							panic(err)
						}
					}
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("OnCaughtUp runs twice", caughtUpOnce, projecting(func(p *sqlite.Projection) {
			up := p.OnCaughtUp
			p.OnCaughtUp = func(ctx context.Context) error { return errors.Join(up(ctx), up(ctx)) }
		})),
		w.broken("CaughtUp is not stored", caughtUpOnce, reporting(func(s *projection.Status) { s.CaughtUp = false })),
		w.broken("an error of OnCaughtUp is ignored", caughtUpFails, projecting(func(p *sqlite.Projection) {
			up := p.OnCaughtUp
			p.OnCaughtUp = func(ctx context.Context) error {
				_ = up(ctx)
				return nil
			}
		})).blocking(),
		w.broken("OnProgress reports the previous cursor", progress, projecting(func(p *sqlite.Projection) {
			next := p.OnProgress
			p.OnProgress = func(g projection.Progress) { g.Cursor -= projection.Cursor(g.Records); next(g) }
		})),
		w.broken("OnProgress reports the size of a full batch", progress, projecting(func(p *sqlite.Projection) {
			next := p.OnProgress
			p.OnProgress = func(g projection.Progress) { g.Records = p.Batch; next(g) }
		})),
		w.broken("a cancelled run returns nil", endsByContext, failing(func(error) error { return nil })),
		w.broken("a run does not wait for its handler", endsByContext, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				done := make(chan error, 1)
				go func() { done <- f.Store.Project(ctx, p) }()
				select {
				case err := <-done:
					return err
				case <-ctx.Done():
					return ended(ctx)
				}
			}
		}),
		w.broken("an invalid projection is an untyped error", invalidRefused, failing(untyped)),
		w.broken("a negative batch is taken for the default", invalidRefused, projecting(func(p *sqlite.Projection) { p.Batch = max(p.Batch, 0) })).blocking(),
		w.broken("a long name is truncated", invalidRefused, projecting(func(p *sqlite.Projection) {
			p.Name = strings.ReplaceAll(p.Name[:min(len(p.Name), es.MaxKind)], "\x00", "0")
		})).blocking(),
	}
}

func untyped(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return errors.New(err.Error())
}

func (w workshop) brokenWorkers() []defect[conformance.Listed] {
	const never = "update es_workers set expires = 9000000000000000 where worker = new.worker; end"
	return []defect[conformance.Listed]{
		w.broken("each worker has its own checkpoint", manyWorkers, func(f *faultySide) {
			var workers atomic.Int32
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if n := workers.Add(1); n > 1 {
					p.Name += fmt.Sprint(n)
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("each worker applies a batch in reverse", manyWorkers, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			records = slices.Clone(records)
			slices.Reverse(records)
			return next(ctx, tx, records)
		})),
		w.broken("the first worker keeps all shards", fairShares, func(f *faultySide) {
			alone := make(chan struct{}, 1)
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				select {
				case alone <- struct{}{}:
				case <-ctx.Done():
					return ended(ctx)
				}
				defer func() { <-alone }()
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("a stopped worker keeps its lease", handsOver,
			tampering("create trigger broken before delete on es_workers begin select raise(ignore); end")).blocking(),
		w.brokenApart("a lease does not expire", leaseExpires,
			tampering("create trigger broken_insert after insert on es_workers begin "+never, "create trigger broken_update after update on es_workers begin "+never,
				"update es_workers set worker = worker")).blocking(), // the worker's row exists already, and it may die before it renews it
		w.broken("Partitions is ignored", repartitioned, projecting(func(p *sqlite.Projection) { p.Partitions = 1 })).blocking(),
		w.broken("new shards start before the previous checkpoint", repartitioned,
			tampering("create trigger broken after insert on es_shards when new.cursor > 3 begin update es_shards set cursor = cursor - 3 where name = new.name and shard = new.shard; end")),
		w.broken("new shards start after the previous checkpoint", repartitioned,
			tampering("create trigger broken after insert on es_shards when new.cursor > 3 begin update es_shards set cursor = cursor + 1 where name = new.name and shard = new.shard; end")).blocking(),
		w.broken("a shard without records does not move its checkpoint", emptyShards, sourcing(silent)).blocking(),
	}
}

// available returns an error that no longer wraps es.ErrUnavailable.
func available(err error) error {
	if errors.Is(err, es.ErrUnavailable) {
		return errors.New(err.Error())
	}
	return err
}

func (w workshop) brokenUnknown() []defect[conformance.Listed] {
	hide := func(err error) error {
		if unknown := (*es.UnknownEventError)(nil); errors.As(err, &unknown) {
			return errors.New(err.Error())
		}
		return err
	}
	blaming := handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
		return hide(next(ctx, tx, records))
	})
	return []defect[conformance.Listed]{
		w.broken("a record of an unknown type is parked", unknownLeft, blaming).blocking(),
		w.broken("Status does not have the type", unknownNamed, func(f *faultySide) {
			f.onStatus = func(all []projection.Status) []projection.Status {
				for i := range all {
					all[i].NeedsType = ""
				}
				return all
			}
		}).blocking(),
		w.broken("a reaction parks a record whose handler meets an unknown type", unknownReacted, reacting(func(ctx context.Context, r es.Record, next func(context.Context, es.Record) error) error {
			return hide(next(ctx, r))
		})).blocking(),
		w.broken("a worker that does not know the type carries out Retry", unknownRetried, blaming).blocking(),
		w.broken("a projection waits although no other worker can continue", unknownStops, projecting(func(p *sqlite.Projection) { p.OnError = es.Park })).blocking(),
	}
}

func (w workshop) brokenErrors() []defect[conformance.Listed] {
	ignored := handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
		_ = next(ctx, tx, records)
		return nil
	})
	return []defect[conformance.Listed]{
		w.broken("an error is ignored", retried, ignored),
		w.broken("nothing is retried", retried, projecting(func(p *sqlite.Projection) { p.Retries = -1 })).blocking(),
		w.broken("a projection treats ErrUnavailable as an error of the record", unavailable, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return available(next(ctx, tx, records))
		})),
		w.broken("a reaction treats ErrUnavailable as an error of the record", unavailable, reacting(func(ctx context.Context, r es.Record, next func(context.Context, es.Record) error) error {
			return available(next(ctx, r))
		})),
		w.broken("a failing record is skipped", stopsBefore, ignored).blocking(),
		w.broken("the error names the next record", stopsBefore, failing(func(err error) error {
			if stopped := (*projection.Error)(nil); errors.As(err, &stopped) {
				stopped.Record.Version++
			}
			return err
		})),
		w.broken("the records before it in its batch are not applied", stopsBefore, projecting(func(p *sqlite.Projection) {
			var failed error
			next := p.Handle
			p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				if failed == nil {
					failed = next(ctx, tx, records)
				}
				return failed
			}
		})),
		w.broken("a projection resumes after the failing record", resumesFixed, func(f *faultySide) {
			skipped := es.Position(0)
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				next := p.Handle
				p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
					return next(ctx, tx, slices.DeleteFunc(slices.Clone(records), func(r es.Record) bool { return r.Position <= skipped }))
				}
				err := f.Store.Project(ctx, p)
				if stopped := (*projection.Error)(nil); errors.As(err, &stopped) {
					skipped = stopped.Record.Position
				}
				return err
			}
		}).blocking(),
		w.broken("all projections stop with the first", othersContinue, func(f *faultySide) {
			all, stop := context.WithCancel(w.Context())
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(all, cancel)()
				defer stop()
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("a panic is an untyped error", panicIsError, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) (err error) {
			defer func() {
				if v := recover(); v != nil {
					err = fmt.Errorf("panic: %v", v)
				}
			}()
			return next(ctx, tx, records)
		})),
		w.broken("the stack of a panic is lost", panicIsError, failing(func(err error) error {
			if panicked := (*es.PanicError)(nil); errors.As(err, &panicked) {
				panicked.Stack = nil
			}
			return err
		})),
		w.broken("Status has no errors", statusError, reporting(func(s *projection.Status) { s.Error = "" })),
		w.broken("Status keeps errors that are fixed", statusError, func(f *faultySide) {
			var errs table[string]
			reporting(func(s *projection.Status) {
				if s.Error != "" {
					errs.put(s.Name, s.Error)
				}
				s.Error, _ = errs.get(s.Name)
			})(f)
		}),
	}
}
