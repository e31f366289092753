package conformance_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

const (
	parksStream    = "failing record is parked with the later ones of its stream"
	parkedAsIs     = "Parked returns records with error and attempts"
	retryFrees     = "Retry applies the parked records of a stream in order"
	retryStops     = "Retry stops at the first record that fails again"
	dropsFirst     = "Drop discards the first parked record of a stream"
	parkedForNext  = "parked streams stay parked for the next worker"
	parkedDivided  = "parked streams stay parked when partitions change"
	nothingParked  = "Retry and Drop refuse a stream that is not parked"
	rebuildRunning = "Rebuild restarts a running projection"
	rebuildIdle    = "Rebuild of an idle projection takes effect at its next run"
	rebuildParked  = "Rebuild discards parked records"
	versionBeside  = "new version is built beside the old one"
	forgetRunning  = "Forget refuses a running projection and deletes a stopped one"
	unknownRefused = "Rebuild and Forget refuse an unknown projection"
)

const keepParked = "create trigger spoilt before delete on es_parked begin select raise(ignore); end"

// onItsOwn handles each record for itself, and puts those that fail aside without a thought for those behind.
func onItsOwn(park bool) func(*faultySide) {
	return projecting(func(p *sqlite.Projection) {
		next := p.Handle
		p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
			for i, r := range records {
				if err := execute(ctx, tx, "savepoint one"); err != nil {
					return err
				}
				if next(ctx, tx, records[i:i+1]) != nil {
					if err := execute(ctx, tx, "rollback to one"); err != nil {
						return err
					}
					if _, err := tx.ExecContext(ctx, "insert into es_parked select ?, 0, ?, ?, ?, ?, 1, 'happened', x'', '', 'bad', 2, 1, '0/1', '' where ?",
						p.Name, r.Stream.Kind, r.Stream.ID, int64(r.Version), int64(r.Position), park); err != nil {
						return err
					}
				}
				if err := execute(ctx, tx, "release one"); err != nil {
					return err
				}
			}
			return nil
		}
	})
}

// parkedAs spoils what is told of what is parked.
func parkedAs(change func(p *projection.Parked)) func(*faultySide) {
	return func(f *faultySide) {
		f.onParked = func(p projection.Parked) projection.Parked { change(&p); return p }
	}
}

func (w workshop) brokenParking() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("the later records of the stream are applied", parksStream, onItsOwn(true)),
		w.broken("a record that fails is left out", parksStream, onItsOwn(false)),
		w.broken("nothing is parked", parksStream, projecting(func(p *sqlite.Projection) { p.OnError = es.Stop })).blocking(),
		w.broken("Status does not count what is parked", parksStream, telling(func(s *projection.Status) { s.Parked = 0 })),
		w.broken("the metadata is not parked", parkedAsIs, parkedAs(func(p *projection.Parked) { p.Record.Meta = nil })),
		w.broken("attempts are not counted", parkedAsIs, parkedAs(func(p *projection.Parked) { p.Attempts = min(p.Attempts, 1) })),
		w.broken("those that wait have the error too", parkedAsIs, func(f *faultySide) {
			var last atomic.Value
			f.onParked = func(p projection.Parked) projection.Parked {
				if p.Error == "" {
					p.Error = last.Load().(string)
				}
				last.Store(p.Error)
				return p
			}
		}),
		w.broken("what is parked is forgotten when a worker starts", parkedForNext, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if _, err := f.DB().ExecContext(ctx, "delete from es_parked"); err != nil {
					return err
				}
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("what is parked stays with the number of its shard", parkedDivided,
			tampering("create trigger spoilt before update of shard on es_parked begin select raise(ignore); end")).blocking(),
	}
}

// holdingBack applies one of the records that are to be retried behind the one that follows. It is told of each record and of the first that is parked.
func holdingBack(which func(r, parked es.Record) bool) func(*faultySide) {
	return func(f *faultySide) {
		var first table[es.Record] // that is parked of a stream, when Retry was called
		f.onRetry = func(ctx context.Context, name string, version int, stream es.Stream) error {
			for p, err := range f.Store.Parked(ctx) {
				if err != nil {
					return err
				}
				if p.Record.Stream == stream {
					first.put(stream.String(), p.Record)
					break
				}
			}
			return f.Store.Retry(ctx, name, version, stream)
		}
		var held []es.Record
		handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
			for _, r := range records {
				if parked, asked := first.get(r.Stream.String()); asked && which(r, parked) {
					held = append(held, r)
					continue
				}
				if err := next(ctx, tx, append([]es.Record{r}, held...)); err != nil {
					return err
				}
				held = nil
			}
			return nil
		})(f)
	}
}

func (w workshop) brokenWishes() []defect[conformance.Listed] {
	retryDrops := func(f *faultySide) { f.onRetry = f.Store.Drop }
	passing := func(err error) error {
		if errors.Is(err, es.ErrInvalid) {
			return nil
		}
		return err
	}
	return []defect[conformance.Listed]{
		w.broken("Retry leaves the first record out", retryFrees, retryDrops),
		w.broken("Retry does nothing", retryFrees, func(f *faultySide) {
			f.onRetry = func(context.Context, string, int, es.Stream) error { return nil }
		}).blocking(),
		w.broken("Retry applies a record before the one that it comes behind", retryFrees, holdingBack(func(r, parked es.Record) bool { return r.Version == parked.Version })),
		w.broken("what comes later is applied before the last that is parked", retryFrees, holdingBack(func(r, parked es.Record) bool { return r.Version == parked.Version+3 })).blocking(),
		w.broken("a record that fails again is given up, and those behind it are applied", retryStops, retryDrops).blocking(),
		w.broken("another try is not counted", retryStops, parkedAs(func(p *projection.Parked) { p.Attempts = min(p.Attempts, 2) })).blocking(),
		w.broken("Drop gives up on the whole stream", dropsFirst,
			tampering("create trigger spoilt after delete on es_parked begin delete from es_parked where name = old.name and kind = old.kind and id = old.id; end")),
		w.broken("Drop is as Retry", dropsFirst, func(f *faultySide) { f.onDrop = f.Store.Retry }).blocking(),
		w.broken("Retry of what is not parked is taken", nothingParked, func(f *faultySide) {
			f.onRetry = func(ctx context.Context, name string, version int, stream es.Stream) error {
				return passing(f.Store.Retry(ctx, name, version, stream))
			}
		}),
		w.broken("Drop of what is not parked is taken", nothingParked, func(f *faultySide) {
			f.onDrop = func(ctx context.Context, name string, version int, stream es.Stream) error {
				return passing(f.Store.Drop(ctx, name, version, stream))
			}
		}),
	}
}

func (w workshop) brokenRebuilds() []defect[conformance.Listed] {
	noRebuild := func(f *faultySide) { f.onRebuild = func(context.Context, string, int) error { return nil } }
	return []defect[conformance.Listed]{
		w.broken("Rebuild does nothing", rebuildRunning, noRebuild).blocking(),
		w.broken("a rebuild goes on with the read model as it is", rebuildRunning, func(f *faultySide) {
			var prepared atomic.Int32
			projecting(func(p *sqlite.Projection) {
				next := p.Prepare
				p.Prepare = func(ctx context.Context, tx *sql.Tx) error {
					if prepared.Add(1) == 1 {
						return next(ctx, tx)
					}
					return errors.Join(execute(ctx, tx, "savepoint one"), next(ctx, tx), execute(ctx, tx, "rollback to one"))
				}
			})(f)
		}),
		w.broken("each worker prepares", rebuildRunning, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				next := p.Prepare
				p.Prepare = func(ctx context.Context, tx *sql.Tx) error { return errors.Join(next(ctx, tx), next(ctx, tx)) }
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("a wish that nobody hears is lost", rebuildIdle, noRebuild),
		w.broken("what is parked outlives a rebuild", rebuildParked, tampering(keepParked)).blocking(),
		w.broken("a version raised goes on with the old checkpoint", versionBeside, projecting(func(p *sqlite.Projection) { p.Version = 0 })).blocking(),
		w.broken("a version raised ends the old one", versionBeside, func(f *faultySide) {
			old, end := context.WithCancel(w.Context())
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				if p.Version == 0 {
					defer context.AfterFunc(old, cancel)()
				} else {
					end()
				}
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("Forget of what is running is taken", forgetRunning, func(f *faultySide) {
			f.onForget = func(ctx context.Context, name string, version int) error {
				err := f.Store.Forget(ctx, name, version)
				if err != nil && strings.Contains(err.Error(), "workers run it") {
					return nil
				}
				return err
			}
		}),
		w.broken("Forget leaves what is parked", forgetRunning, tampering(keepParked)).blocking(),
		w.broken("Forget leaves the checkpoints", forgetRunning,
			tampering("create trigger spoilt before delete on es_shards begin select raise(ignore); end")).blocking(),
		w.broken("Rebuild of what is not there is taken", unknownRefused, noRebuild),
		w.broken("Forget of what is not there is taken", unknownRefused, func(f *faultySide) {
			f.onForget = func(ctx context.Context, name string, version int) error {
				if err := f.Store.Forget(ctx, name, version); !errors.Is(err, es.ErrInvalid) {
					return err
				}
				return nil
			}
		}),
	}
}
