package conformance_test

import (
	"context"
	"database/sql"
	"iter"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// faultySide is a SQLite store with a defect in its projections.
type faultySide struct {
	*sqlite.Store
	onProject  func(ctx context.Context, p sqlite.Projection) error
	onReact    func(ctx context.Context, r projection.Reaction) error
	onWait     func(ctx context.Context, name string, position es.Position) error
	onStatus   func(all []projection.Status) []projection.Status
	onWhy      func(c projection.Cause) projection.Cause
	onRebuild  func(ctx context.Context, name string, version int) error
	onRefilter func(ctx context.Context, name string, version int, filter es.Filter, past projection.Past) error
	onReplay   func(ctx context.Context, name string, version int, from projection.Start) error
	onForget   func(ctx context.Context, name string, version int) error
	onParked   func(p projection.Parked) projection.Parked
	onRetry    func(ctx context.Context, name string, version int, stream es.Stream) error
	onDrop     func(ctx context.Context, name string, version int, stream es.Stream) error
}

func (f *faultySide) Project(ctx context.Context, p sqlite.Projection) error {
	if f.onProject != nil {
		return f.onProject(ctx, p)
	}
	return f.Store.Project(ctx, p)
}

func (f *faultySide) React(ctx context.Context, r projection.Reaction) error {
	if f.onReact != nil {
		return f.onReact(ctx, r)
	}
	return f.Store.React(ctx, r)
}

func (f *faultySide) WaitFor(ctx context.Context, name string, position es.Position) error {
	if f.onWait != nil {
		return f.onWait(ctx, name, position)
	}
	return f.Store.WaitFor(ctx, name, position)
}

func (f *faultySide) Status(ctx context.Context) ([]projection.Status, error) {
	all, err := f.Store.Status(ctx)
	if f.onStatus != nil {
		all = f.onStatus(all)
	}
	return all, err
}

func (f *faultySide) Why(ctx context.Context, name string, version int) (projection.Cause, error) {
	c, err := f.Store.Why(ctx, name, version)
	if f.onWhy != nil && err == nil {
		c = f.onWhy(c)
	}
	return c, err
}

func (f *faultySide) Rebuild(ctx context.Context, name string, version int) error {
	if f.onRebuild != nil {
		return f.onRebuild(ctx, name, version)
	}
	return f.Store.Rebuild(ctx, name, version)
}

func (f *faultySide) Refilter(ctx context.Context, name string, version int, filter es.Filter, past projection.Past) error {
	if f.onRefilter != nil {
		return f.onRefilter(ctx, name, version, filter, past)
	}
	return f.Store.Refilter(ctx, name, version, filter, past)
}

func (f *faultySide) Replay(ctx context.Context, name string, version int, from projection.Start) error {
	if f.onReplay != nil {
		return f.onReplay(ctx, name, version, from)
	}
	return f.Store.Replay(ctx, name, version, from)
}

func (f *faultySide) Forget(ctx context.Context, name string, version int) error {
	if f.onForget != nil {
		return f.onForget(ctx, name, version)
	}
	return f.Store.Forget(ctx, name, version)
}

func (f *faultySide) Parked(ctx context.Context) iter.Seq2[projection.Parked, error] {
	return func(yield func(projection.Parked, error) bool) {
		for p, err := range f.Store.Parked(ctx) {
			if f.onParked != nil && err == nil {
				p = f.onParked(p)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (f *faultySide) Retry(ctx context.Context, name string, version int, stream es.Stream) error {
	if f.onRetry != nil {
		return f.onRetry(ctx, name, version, stream)
	}
	return f.Store.Retry(ctx, name, version, stream)
}

func (f *faultySide) Drop(ctx context.Context, name string, version int, stream es.Stream) error {
	if f.onDrop != nil {
		return f.onDrop(ctx, name, version, stream)
	}
	return f.Store.Drop(ctx, name, version, stream)
}

// Lists implements conformance.Listed.
func (f *faultySide) Lists() conformance.Lists[*sql.Tx] { return listsIn(f.DB()) }

func execute(ctx context.Context, tx *sql.Tx, statements ...string) error {
	for _, sql := range statements {
		if _, err := tx.ExecContext(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// workshop opens stores that are closed at the end of a test.
type workshop struct{ testing.TB }

func (w workshop) open(path string) *faultySide {
	s, err := sqlite.Open(path)
	if err != nil {
		panic(err)
	}
	w.Cleanup(func() { s.Close() })
	return &faultySide{Store: s}
}

// broken returns a defect of a store in memory. breakIt is called once for each database.
func (w workshop) broken(name, clause string, breakIt func(f *faultySide)) defect[conformance.Listed] {
	return defect[conformance.Listed]{name: name, clause: clause, narrow: true, database: func() func() conformance.Listed {
		f := w.open(":memory:")
		breakIt(f)
		return func() conformance.Listed { return f }
	}}
}

// brokenApart returns a defect of stores on the same file. breakIt is called once for each of them.
func (w workshop) brokenApart(name, clause string, breakIt func(f *faultySide)) defect[conformance.Listed] {
	return defect[conformance.Listed]{name: name, clause: clause, narrow: true, database: func() func() conformance.Listed {
		path := filepath.Join(w.TempDir(), "es.db")
		return func() conformance.Listed {
			f := w.open(path)
			breakIt(f)
			return f
		}
	}}
}

// handler is the type of Projection.Handle.
type handler = func(ctx context.Context, tx *sql.Tx, records []es.Record) error

// projecting changes a projection before each run.
func projecting(breakIt func(p *sqlite.Projection)) func(*faultySide) {
	return func(f *faultySide) {
		f.onProject = func(ctx context.Context, p sqlite.Projection) error {
			breakIt(&p)
			return f.Store.Project(ctx, p)
		}
	}
}

// handling changes how the handler is called.
func handling(do func(ctx context.Context, tx *sql.Tx, records []es.Record, next handler) error) func(*faultySide) {
	return projecting(func(p *sqlite.Projection) {
		next := p.Handle
		p.Handle = func(ctx context.Context, tx *sql.Tx, records []es.Record) error { return do(ctx, tx, records, next) }
	})
}

// failing changes the error of a run.
func failing(change func(err error) error) func(*faultySide) {
	return func(f *faultySide) {
		f.onProject = func(ctx context.Context, p sqlite.Projection) error { return change(f.Store.Project(ctx, p)) }
	}
}

// tampering adds triggers to the tables of the engine when the projection is prepared.
func tampering(triggers ...string) func(*faultySide) {
	return projecting(func(p *sqlite.Projection) {
		next := p.Prepare
		p.Prepare = func(ctx context.Context, tx *sql.Tx) error {
			if err := execute(ctx, tx, triggers...); err != nil {
				return err
			}
			return next(ctx, tx)
		}
	})
}

// sourcing changes the source.
func sourcing(change func(s projection.Source) projection.Source) func(*faultySide) {
	return func(f *faultySide) {
		f.onProject = func(ctx context.Context, p sqlite.Projection) error {
			if p.Source == nil {
				p.Source = projection.FromLog(f)
			}
			p.Source = change(p.Source)
			return f.Store.Project(ctx, p)
		}
	}
}

// reporting changes each entry of the status.
func reporting(change func(s *projection.Status)) func(*faultySide) {
	return func(f *faultySide) {
		f.onStatus = func(all []projection.Status) []projection.Status {
			for i := range all {
				change(&all[i])
			}
			return all
		}
	}
}

// faultySource is a source with a defect in one method.
type faultySource struct {
	projection.Source
	onID     func() string
	onShards func(names []string) []string
	onFeed   func(ctx context.Context, s projection.Source, shard string, after projection.Cursor, filter es.Filter) (projection.Feed, error)
	onNext   func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error)
}

func (s *faultySource) ID() string {
	if s.onID != nil {
		return s.onID()
	}
	return s.Source.ID()
}

func (s *faultySource) Shards(ctx context.Context, partitions int) ([]string, error) {
	names, err := s.Source.Shards(ctx, partitions)
	if err == nil && s.onShards != nil {
		names = s.onShards(names)
	}
	return names, err
}

func (s *faultySource) Feed(ctx context.Context, shard string, after projection.Cursor, filter es.Filter) (feed projection.Feed, err error) {
	if s.onFeed != nil {
		feed, err = s.onFeed(ctx, s.Source, shard, after, filter)
	} else {
		feed, err = s.Source.Feed(ctx, shard, after, filter)
	}
	if err == nil && s.onNext != nil {
		feed = &faultyFeed{feed, s.onNext}
	}
	return feed, err
}

type faultyFeed struct {
	projection.Feed
	onNext func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error)
}

func (f *faultyFeed) Next(ctx context.Context, most int) (projection.Batch, error) {
	return f.onNext(ctx, f.Feed, most)
}

// silent is a source whose feeds never return a batch without records.
func silent(s projection.Source) projection.Source {
	return &faultySource{Source: s, onNext: func(ctx context.Context, f projection.Feed, most int) (projection.Batch, error) {
		for {
			if b, err := f.Next(ctx, most); err != nil || len(b.Records) > 0 {
				return b, err
			}
		}
	}}
}
