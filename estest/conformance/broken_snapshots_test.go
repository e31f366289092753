package conformance_test

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/thalo-go/es"
)

// faultySnapshots is an es.Mem with a defect in its snapshots.
type faultySnapshots struct {
	*es.Mem
	onSave func(ctx context.Context, s es.Snapshot) error
	onLoad func(ctx context.Context, stream es.Stream) (es.Snapshot, error)
}

func (f *faultySnapshots) SaveSnapshot(ctx context.Context, s es.Snapshot) error {
	if f.onSave != nil {
		return f.onSave(ctx, s)
	}
	return f.Mem.SaveSnapshot(ctx, s)
}

func (f *faultySnapshots) LoadSnapshot(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
	if f.onLoad != nil {
		return f.onLoad(ctx, stream)
	}
	return f.Mem.LoadSnapshot(ctx, stream)
}

const (
	newerKept    = "older snapshot does not replace a newer one"
	newestWins   = "newest snapshot remains after a race"
	streamsOwn   = "each stream has its own snapshot"
	snapshotAs   = "snapshot is loaded as it was saved"
	snapshotData = "snapshot data is kept byte by byte"
	sharedSnaps  = "snapshots are visible through every store"
	snapMemory   = "snapshot data is copied"
	snapContext  = "snapshots obey the context"
	badStream    = "snapshot of an invalid stream is refused"
	noneIsZero   = "missing snapshot is the zero Snapshot"
)

// saving and fetching are the methods of a store.
type (
	saving   func(context.Context, es.Snapshot) error
	fetching func(context.Context, es.Stream) (es.Snapshot, error)
)

// brokenStore returns a defect of stores whose database is a Mem.
func brokenStore(name, clause string, store func(m *es.Mem) (saving, fetching)) defect[es.Snapshots] {
	return defect[es.Snapshots]{name: name, clause: clause, database: func() func() es.Snapshots {
		m := new(es.Mem)
		return func() es.Snapshots {
			save, load := store(m)
			return &faultySnapshots{Mem: m, onSave: save, onLoad: load}
		}
	}}
}

// loaded changes snapshots when they are loaded.
func loaded(change func(es.Snapshot, error) (es.Snapshot, error)) func(m *es.Mem) (saving, fetching) {
	return func(m *es.Mem) (saving, fetching) {
		return nil, func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
			return change(m.LoadSnapshot(ctx, stream))
		}
	}
}

func brokenSnapshots() []defect[es.Snapshots] {
	return []defect[es.Snapshots]{
		brokenStore("a missing snapshot is an error", noneIsZero, loaded(func(s es.Snapshot, err error) (es.Snapshot, error) {
			if s.Version == 0 && err == nil {
				err = errors.New("no rows in result set")
			}
			return s, err
		})),
		brokenStore("a missing snapshot has a stream", noneIsZero, func(m *es.Mem) (saving, fetching) {
			return nil, func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
				s, err := m.LoadSnapshot(ctx, stream)
				s.Stream = stream
				return s, err
			}
		}),
		brokenStore("positions have 32 bits", snapshotAs, loaded(func(s es.Snapshot, err error) (es.Snapshot, error) {
			s.Position = es.Position(int32(s.Position))
			return s, err
		})),
		brokenStore("the schema is lost", snapshotAs, loaded(func(s es.Snapshot, err error) (es.Snapshot, error) {
			s.Schema = 0
			return s, err
		})).noticedBy(newerKept),
		brokenStore("data is taken for text", snapshotData, loaded(func(s es.Snapshot, err error) (es.Snapshot, error) {
			s.Data = bytes.ToValidUTF8(s.Data, nil)
			return s, err
		})),
	}
}

func brokenSaves() []defect[es.Snapshots] {
	return []defect[es.Snapshots]{
		brokenStore("the last snapshot saved is kept", newerKept, func(m *es.Mem) (saving, fetching) {
			return func(ctx context.Context, s es.Snapshot) error {
				old, err := m.LoadSnapshot(ctx, s.Stream)
				if err != nil || !old.Newer(s) {
					return m.SaveSnapshot(ctx, s)
				}
				s.Schema += 1 << 20 // higher than the saved one
				return m.SaveSnapshot(ctx, s)
			}, nil
		}).noticedBy(newestWins),
		brokenStore("only the versions of snapshots are compared", newerKept, func(m *es.Mem) (saving, fetching) {
			return func(ctx context.Context, s es.Snapshot) error {
				if old, err := m.LoadSnapshot(ctx, s.Stream); err != nil || old.Version > s.Version {
					return err
				}
				return m.SaveSnapshot(ctx, s)
			}, nil
		}),
		brokenStore("an older snapshot is refused with an error", newerKept, func(m *es.Mem) (saving, fetching) {
			return func(ctx context.Context, s es.Snapshot) error {
				old, err := m.LoadSnapshot(ctx, s.Stream)
				if err == nil && old.Schema > s.Schema {
					return errors.New("there is a newer snapshot")
				}
				return m.SaveSnapshot(ctx, s)
			}, nil
		}),
		{name: "snapshots are compared before the lock", clause: newestWins, database: func() func() es.Snapshots {
			var kept table[es.Snapshot]
			f := &faultySnapshots{Mem: new(es.Mem)}
			f.onSave = func(ctx context.Context, s es.Snapshot) error {
				if err := errors.Join(s.Stream.Check(), ended(ctx)); err != nil {
					return err
				}
				if old, found := kept.get(s.Stream.String()); found && old.Newer(s) {
					return nil
				}
				window()
				s.Data = bytes.Clone(s.Data)
				kept.put(s.Stream.String(), s)
				return nil
			}
			f.onLoad = func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
				s, _ := kept.get(stream.String())
				s.Data = bytes.Clone(s.Data)
				return s, ended(ctx)
			}
			return func() es.Snapshots { return f }
		}},
	}
}

func brokenStreams() []defect[es.Snapshots] {
	return []defect[es.Snapshots]{
		brokenStore("stream names ignore case", streamsOwn, func(m *es.Mem) (saving, fetching) {
			fold := func(s es.Stream) es.Stream {
				if s.Check() == nil {
					s.ID = strings.ToLower(s.ID)
				}
				return s
			}
			return func(ctx context.Context, s es.Snapshot) error {
					s.Stream = fold(s.Stream)
					return m.SaveSnapshot(ctx, s)
				}, func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
					return m.LoadSnapshot(ctx, fold(stream))
				}
		}),
		brokenStore("a store caches snapshots", sharedSnaps, func(m *es.Mem) (saving, fetching) {
			var known table[es.Snapshot]
			return func(ctx context.Context, s es.Snapshot) error {
					err := m.SaveSnapshot(ctx, s)
					if now, loadErr := m.LoadSnapshot(ctx, s.Stream); err == nil && loadErr == nil {
						known.put(s.Stream.String(), now)
					}
					return err
				}, func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
					if s, found := known.get(stream.String()); found {
						s.Data = bytes.Clone(s.Data)
						return s, ended(ctx)
					}
					return m.LoadSnapshot(ctx, stream)
				}
		}).noticedBy(newestWins),
		brokenStore("the caller's data is retained", snapMemory, func(m *es.Mem) (saving, fetching) {
			var given table[[]byte]
			return func(ctx context.Context, s es.Snapshot) error {
					given.put(s.Stream.String(), s.Data)
					return m.SaveSnapshot(ctx, s)
				}, func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
					s, err := m.LoadSnapshot(ctx, stream)
					if data, found := given.get(stream.String()); found && len(data) == len(s.Data) {
						s.Data = bytes.Clone(data)
					}
					return s, err
				}
		}).noticedBy(newerKept),
		brokenStore("readers share the data", snapMemory, func(m *es.Mem) (saving, fetching) {
			var known table[es.Snapshot]
			return nil, func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
				s, err := m.LoadSnapshot(ctx, stream)
				if shared, found := known.get(stream.String()); found && shared.Version == s.Version && shared.Schema == s.Schema {
					return shared, err
				}
				known.put(stream.String(), s)
				return s, err
			}
		}).noticedBy(newerKept),
		brokenStore("contexts are ignored", snapContext, func(m *es.Mem) (saving, fetching) {
			return func(ctx context.Context, s es.Snapshot) error { return m.SaveSnapshot(context.WithoutCancel(ctx), s) },
				func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
					return m.LoadSnapshot(context.WithoutCancel(ctx), stream)
				}
		}),
		brokenStore("invalid streams are accepted", badStream, func(m *es.Mem) (saving, fetching) {
			return func(ctx context.Context, s es.Snapshot) error {
				if s.Stream.Check() != nil {
					return nil //nolint:nilerr // that is the defect
				}
				return m.SaveSnapshot(ctx, s)
			}, nil
		}),
	}
}
