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
	parkedInParts  = "messages made of one record are parked one by one"
	retryFrees     = "Retry applies the parked records of a stream in order"
	retryStops     = "Retry stops at the first record that fails again"
	retryInPieces  = "Retry does not delay other streams until all parked are applied"
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

const keepParked = "create trigger broken before delete on es_parked begin select raise(ignore); end"

// eachAlone handles each record separately, and parks or skips those that fail without regard to the later ones.
func eachAlone(park bool) func(*faultySide) {
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
					if _, err := tx.ExecContext(ctx, "insert into es_parked select ?, 0, ?, ?, ?, ?, 1, 'happened', x'', '', 'bad', 2, 1, '0/1', '', '', 0 where ?",
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

// parkedAs changes the records that Parked returns.
func parkedAs(change func(p *projection.Parked)) func(*faultySide) {
	return func(f *faultySide) {
		f.onParked = func(p projection.Parked) projection.Parked { change(&p); return p }
	}
}

func (w workshop) brokenParking() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("the later records of the stream are applied", parksStream, eachAlone(true)),
		w.broken("a failing record is skipped", parksStream, eachAlone(false)),
		w.broken("nothing is parked", parksStream, projecting(func(p *sqlite.Projection) { p.OnError = es.Stop })).blocking(),
		w.broken("Status does not count parked records", parksStream, reporting(func(s *projection.Status) { s.Parked = 0 })),
		w.broken("metadata is not parked", parkedAsIs, parkedAs(func(p *projection.Parked) { p.Record.Meta = nil })),
		w.broken("attempts are not counted", parkedAsIs, parkedAs(func(p *projection.Parked) { p.Attempts = min(p.Attempts, 1) })),
		w.broken("waiting records have the error too", parkedAsIs, func(f *faultySide) {
			var last atomic.Value
			f.onParked = func(p projection.Parked) projection.Parked {
				if p.Error == "" {
					p.Error = last.Load().(string)
				}
				last.Store(p.Error)
				return p
			}
		}),
		w.broken("parked records are deleted when a worker starts", parkedForNext, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				if _, err := f.DB().ExecContext(ctx, "delete from es_parked"); err != nil {
					return err
				}
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("all parts of a record are discarded", parkedInParts, tampering(`create trigger broken after delete on es_parked begin
			delete from es_parked where kind = old.kind and id = old.id and stream_version = old.stream_version; end`)).blocking(),
		w.broken("parts are parked in another order", parkedInParts, tampering(`create trigger broken after insert on es_parked when new.part = 3 begin
			update es_parked set part = 1 where part = 3; end`)),
		w.broken("parked records keep the number of their shard", parkedDivided,
			tampering("create trigger broken before update of shard on es_parked begin select raise(ignore); end")).blocking(),
	}
}

// holdingBack applies one of the retried records after the next one. which gets each record and the first parked one of its stream.
func holdingBack(which func(r, parked es.Record) bool) func(*faultySide) {
	return func(f *faultySide) {
		var first table[es.Record] // by stream: the first parked record when Retry was called
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
				if parked, found := first.get(r.Stream.String()); found && which(r, parked) {
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

func (w workshop) brokenRequests() []defect[conformance.Listed] {
	retryDrops := func(f *faultySide) { f.onRetry = f.Store.Drop }
	ignored := func(err error) error {
		if errors.Is(err, es.ErrInvalid) {
			return nil
		}
		return err
	}
	return []defect[conformance.Listed]{
		w.broken("Retry skips the first record", retryFrees, retryDrops),
		w.broken("Retry does nothing", retryFrees, func(f *faultySide) {
			f.onRetry = func(context.Context, string, int, es.Stream) error { return nil }
		}).blocking(),
		w.broken("Retry applies records out of order", retryFrees, holdingBack(func(r, parked es.Record) bool { return r.Version == parked.Version })),
		w.broken("a later record is applied before the last parked one", retryFrees, holdingBack(func(r, parked es.Record) bool { return r.Version == parked.Version+3 })).blocking(),
		w.broken("other streams wait until all parked records are applied", retryInPieces, func(f *faultySide) {
			var held []es.Record
			handling(func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error {
				var waits bool
				if err := tx.QueryRowContext(ctx, "select exists (select 1 from es_parked)").Scan(&waits); err != nil {
					return err
				}
				if waits && records[0].Stream.ID == "b" {
					held = append(held, records...)
					return nil
				}
				if waits {
					return next(ctx, tx, records)
				}
				err := next(ctx, tx, append(records, held...))
				held = nil
				return err
			})(f)
		}),
		w.broken("a record that fails again is dropped and the later ones are applied", retryStops, retryDrops).blocking(),
		w.broken("attempts of Retry are not counted", retryStops, parkedAs(func(p *projection.Parked) { p.Attempts = min(p.Attempts, 2) })).blocking(),
		w.broken("Drop discards the whole stream", dropsFirst,
			tampering("create trigger broken after delete on es_parked begin delete from es_parked where name = old.name and kind = old.kind and id = old.id; end")),
		w.broken("Drop retries", dropsFirst, func(f *faultySide) { f.onDrop = f.Store.Retry }).blocking(),
		w.broken("Retry of a stream that is not parked returns nil", nothingParked, func(f *faultySide) {
			f.onRetry = func(ctx context.Context, name string, version int, stream es.Stream) error {
				return ignored(f.Store.Retry(ctx, name, version, stream))
			}
		}),
		w.broken("Drop of a stream that is not parked returns nil", nothingParked, func(f *faultySide) {
			f.onDrop = func(ctx context.Context, name string, version int, stream es.Stream) error {
				return ignored(f.Store.Drop(ctx, name, version, stream))
			}
		}),
	}
}

func (w workshop) brokenRebuilds() []defect[conformance.Listed] {
	noRebuild := func(f *faultySide) { f.onRebuild = func(context.Context, string, int) error { return nil } }
	return []defect[conformance.Listed]{
		w.broken("Rebuild does nothing", rebuildRunning, noRebuild).blocking(),
		w.broken("a rebuild keeps the old rows", rebuildRunning, func(f *faultySide) {
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
		w.broken("each worker calls Prepare", rebuildRunning, func(f *faultySide) {
			f.onProject = func(ctx context.Context, p sqlite.Projection) error {
				next := p.Prepare
				p.Prepare = func(ctx context.Context, tx *sql.Tx) error { return errors.Join(next(ctx, tx), next(ctx, tx)) }
				return f.Store.Project(ctx, p)
			}
		}).blocking(),
		w.broken("a request without a worker is lost", rebuildIdle, noRebuild),
		w.broken("parked records survive a rebuild", rebuildParked, tampering(keepParked)).blocking(),
		w.broken("a new version uses the old checkpoint", versionBeside, projecting(func(p *sqlite.Projection) { p.Version = 0 })).blocking(),
		w.broken("a new version stops the old one", versionBeside, func(f *faultySide) {
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
		w.broken("Forget of a running projection returns nil", forgetRunning, func(f *faultySide) {
			f.onForget = func(ctx context.Context, name string, version int) error {
				err := f.Store.Forget(ctx, name, version)
				if err != nil && strings.Contains(err.Error(), "workers run it") {
					return nil
				}
				return err
			}
		}),
		w.broken("Forget keeps parked records", forgetRunning, tampering(keepParked)).blocking(),
		w.broken("Forget keeps the checkpoints", forgetRunning,
			tampering("create trigger broken before delete on es_shards begin select raise(ignore); end")).blocking(),
		w.broken("Rebuild of an unknown projection returns nil", unknownRefused, noRebuild),
		w.broken("Forget of an unknown projection returns nil", unknownRefused, func(f *faultySide) {
			f.onForget = func(ctx context.Context, name string, version int) error {
				if err := f.Store.Forget(ctx, name, version); !errors.Is(err, es.ErrInvalid) {
					return err
				}
				return nil
			}
		}),
	}
}
