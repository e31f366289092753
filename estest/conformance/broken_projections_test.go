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
	appliesOnce     = "projection applies every record once and in order"
	goesOn          = "projection resumes at its checkpoint"
	atomically      = "failed handler leaves no writes"
	inBatches       = "batch has 1 to Batch records"
	filtered        = "filter selects records and the checkpoint passes the rest"
	preparesFirst   = "Prepare runs once before the first record"
	preparesInVain  = "failed Prepare leaves nothing behind"
	nothingThere    = "projection catches up with an empty log"
	caughtUpOnce    = "OnCaughtUp runs once after the existing records"
	caughtUpFails   = "error of OnCaughtUp ends the run"
	tellsProgress   = "OnProgress reports transactions one at a time"
	endsByContext   = "cancelled run returns after its handlers"
	cannotRun       = "invalid projection is refused"
	manyWorkers     = "several workers apply every record once"
	fairShares      = "shards are divided evenly"
	handsOver       = "stopped worker hands over at once"
	leaseRunsOut    = "dead worker is replaced when its lease expires"
	divisionChanges = "partitions can be changed while it runs"
	emptyShards     = "there may be more partitions than streams"
	triedAgain      = "failed handler is retried"
	waitedFor       = "ErrUnavailable is retried indefinitely"
	stopsBefore     = "failing record stops the projection before it"
	goesOnMended    = "stopped projection resumes once the handler is fixed"
	othersGoOn      = "stopped projection does not stop the others"
	panicIsError    = "panic in Handle is an error with its stack"
	panicBeside     = "panic in Prepare, OnCaughtUp or OnProgress is an error"
	tellsOfError    = "Status has the error until it is fixed"
)

func TestEveryDefectOfAProjectionIsCaughtByItsClause(t *testing.T) {
	w := workshop{t}
	defects := slices.Concat(w.brokenApplying(), w.brokenPrepares(), w.brokenRuns(), w.brokenWorkers(), w.brokenErrors(), w.brokenPanics(),
		w.brokenParking(), w.brokenWishes(), w.brokenRebuilds(), w.brokenSources(), w.brokenAnswers(), w.brokenReactions())
	catch(t, defects, conformance.ProjectionClauses(), conformance.Clause.TryProjections)
}

func (w workshop) brokenApplying() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("the last record of a full batch is left out", appliesOnce, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return next(ctx, tx, records[:min(len(records), projection.DefaultBatch-1)])
		})),
		w.broken("the records of a batch come backwards", appliesOnce, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			records = slices.Clone(records)
			slices.Reverse(records)
			return next(ctx, tx, records)
		})),
		w.broken("the first record of a batch comes twice", appliesOnce, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return errors.Join(next(ctx, tx, records[:1]), next(ctx, tx, records))
		})),
		w.broken("it begins anew with each start", goesOn, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if f.Store.Forget(ctx, p.Name, p.Version) == nil {
					p.Prepare = nil
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("the first batch after a start is left out", goesOn, projecting(func(p *sqlite.Projection) {
			first, next := true, p.Handle
			p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				if first {
					first = false
					return nil
				}
				return next(ctx, tx, records)
			}
		})),
		w.broken("what a handler writes is committed before it has come to its end", atomically, func(f *faultySide) {
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
		w.broken("types are not looked at", filtered, projecting(func(p *sqlite.Projection) { p.Filter.Types = nil })),
		w.broken("what the filter holds back does not move the checkpoint", filtered, sourcing(silent)).blocking(),
	}
}

func (w workshop) brokenPrepares() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("Prepare comes with every start", preparesFirst, projecting(func(p *sqlite.Projection) {
			begun, next := false, p.Handle
			p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				if !begun {
					begun = true
					if err := p.Prepare(ctx, tx); err != nil {
						return err
					}
				}
				return next(ctx, tx, records)
			}
		})),
		w.broken("Prepare is left out", preparesFirst, projecting(func(p *sqlite.Projection) { p.Prepare = nil })).blocking(),
		w.broken("Prepare that failed is committed", preparesInVain, projecting(func(p *sqlite.Projection) {
			next := p.Prepare
			p.Prepare = func(ctx context.Context, tx *sql.Tx) error {
				err := next(ctx, tx)
				if err != nil {
					err = errors.Join(err, tx.Commit())
				}
				return err
			}
		})).blocking(),
		w.broken("an error of Prepare is passed over", preparesInVain, projecting(func(p *sqlite.Projection) {
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
		w.broken("nothing is caught up with before the first record", nothingThere, sourcing(silent)).blocking(),
		w.broken("OnCaughtUp comes after the first transaction", caughtUpOnce, func(f *faultySide) {
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
		w.broken("OnCaughtUp comes twice", caughtUpOnce, projecting(func(p *sqlite.Projection) {
			up := p.OnCaughtUp
			p.OnCaughtUp = func(ctx context.Context) error { return errors.Join(up(ctx), up(ctx)) }
		})),
		w.broken("it is not kept that it has caught up", caughtUpOnce, telling(func(s *projection.Status) { s.CaughtUp = false })),
		w.broken("an error of OnCaughtUp is passed over", caughtUpFails, projecting(func(p *sqlite.Projection) {
			up := p.OnCaughtUp
			p.OnCaughtUp = func(ctx context.Context) error {
				_ = up(ctx)
				return nil
			}
		})).blocking(),
		w.broken("OnProgress is told of the cursor before", tellsProgress, projecting(func(p *sqlite.Projection) {
			next := p.OnProgress
			p.OnProgress = func(g projection.Progress) { g.Cursor -= projection.Cursor(g.Records); next(g) }
		})),
		w.broken("OnProgress is told of as many records as fit in", tellsProgress, projecting(func(p *sqlite.Projection) {
			next := p.OnProgress
			p.OnProgress = func(g projection.Progress) { g.Records = p.Batch; next(g) }
		})),
		w.broken("a run that is ended has no error", endsByContext, failing(func(error) error { return nil })),
		w.broken("a run does not wait for its handler", endsByContext, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				done := make(chan error, 1)
				go func() { done <- f.Store.Project(ctx, p) }()
				select {
				case err := <-done:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}),
		w.broken("what cannot be run is an error of no type", cannotRun, failing(untyped)),
		w.broken("a batch below 0 is taken for the default", cannotRun, projecting(func(p *sqlite.Projection) { p.Batch = max(p.Batch, 0) })).blocking(),
		w.broken("a name is cut where it is too long", cannotRun, projecting(func(p *sqlite.Projection) {
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
		w.broken("each worker has a checkpoint of its own", manyWorkers, func(f *faultySide) {
			var workers atomic.Int32
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if n := workers.Add(1); n > 1 {
					p.Name += fmt.Sprint(n)
				}
				return f.Store.Project(ctx, p)
			}
		}),
		w.broken("each worker goes through a batch backwards", manyWorkers, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
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
					return ctx.Err()
				}
				defer func() { <-alone }()
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("a worker that ends keeps its lease", handsOver,
			tampering("create trigger spoilt before delete on es_workers begin select raise(ignore); end")).blocking(),
		w.brokenApart("a lease does not run out", leaseRunsOut,
			tampering("create trigger spoilt_insert after insert on es_workers begin "+never, "create trigger spoilt_update after update on es_workers begin "+never,
				"update es_workers set worker = worker")).blocking(), // who prepares has his row already, and may die before he renews it
		w.broken("Partitions is ignored", divisionChanges, projecting(func(p *sqlite.Projection) { p.Partitions = 1 })).blocking(),
		w.broken("new shards begin a little before the place where the others stood", divisionChanges,
			tampering("create trigger spoilt after insert on es_shards when new.cursor > 3 begin update es_shards set cursor = cursor - 3 where name = new.name and shard = new.shard; end")),
		w.broken("new shards begin a little behind the place where the others stood", divisionChanges,
			tampering("create trigger spoilt after insert on es_shards when new.cursor > 3 begin update es_shards set cursor = cursor + 1 where name = new.name and shard = new.shard; end")).blocking(),
		w.broken("a shard without records does not move", emptyShards, sourcing(silent)).blocking(),
	}
}

// blamed is an error that does not say any more that something is away.
func blamed(err error) error {
	if errors.Is(err, es.ErrUnavailable) {
		return errors.New(err.Error())
	}
	return err
}

func (w workshop) brokenErrors() []defect[conformance.Listed] {
	passing := handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
		_ = next(ctx, tx, records)
		return nil
	})
	return []defect[conformance.Listed]{
		w.broken("an error is passed over", triedAgain, passing),
		w.broken("nothing is tried again", triedAgain, projecting(func(p *sqlite.Projection) { p.Retries = -1 })).blocking(),
		w.broken("a projection blames the record for what is away", waitedFor, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			return blamed(next(ctx, tx, records))
		})),
		w.broken("a reaction blames the record for what is away", waitedFor, reacting(func(ctx context.Context, r es.Record, next func(context.Context, es.Record) error) error {
			return blamed(next(ctx, r))
		})),
		w.broken("a record that cannot be handled is passed over", stopsBefore, passing).blocking(),
		w.broken("the error names the record behind", stopsBefore, failing(func(err error) error {
			if stopped := (*projection.Error)(nil); errors.As(err, &stopped) {
				stopped.Record.Version++
			}
			return err
		})),
		w.broken("what stands before the record in its batch is not applied", stopsBefore, projecting(func(p *sqlite.Projection) {
			var failed error
			next := p.Handle
			p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				if failed == nil {
					failed = next(ctx, tx, records)
				}
				return failed
			}
		})),
		w.broken("it goes on behind the record", goesOnMended, func(f *faultySide) {
			behind := es.Position(0)
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				next := p.Handle
				p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
					return next(ctx, tx, slices.DeleteFunc(slices.Clone(records), func(r es.Record) bool { return r.Position <= behind }))
				}
				err := f.Store.Project(ctx, p)
				if stopped := (*projection.Error)(nil); errors.As(err, &stopped) {
					behind = stopped.Record.Position
				}
				return err
			}
		}).blocking(),
		w.broken("all stop with the first", othersGoOn, func(f *faultySide) {
			all, stop := context.WithCancel(w.Context())
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(all, cancel)()
				defer stop()
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("a panic is told as text", panicIsError, handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) (err error) {
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
		w.broken("Status does not tell of errors", tellsOfError, telling(func(s *projection.Status) { s.Error = "" })),
		w.broken("Status tells of errors that are mended", tellsOfError, func(f *faultySide) {
			var told table[string]
			telling(func(s *projection.Status) {
				if s.Error != "" {
					told.put(s.Name, s.Error)
				}
				s.Error, _ = told.get(s.Name)
			})(f)
		}),
	}
}
