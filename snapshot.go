package es

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"
)

// A Snapshot is the state of one stream at a version, kept so that a load need not read the events before it.
// It is a cache: one that is missing, broken or of another schema costs time and never correctness.
type Snapshot struct {
	Stream   Stream
	Version  Version  // of the last event in the state
	Position Position // of that event: a Repo uses the snapshot only if the log has that version there
	Schema   int      // what the program calls the layout of the state; see [Repo.SnapshotSchema]
	Data     []byte
}

// Newer tells whether s is to be kept when other is saved: it has a higher schema, or the same and a higher version.
// So during a deployment the old program does not undo the snapshots of the new one.
func (s Snapshot) Newer(other Snapshot) bool {
	if s.Schema != other.Schema {
		return s.Schema > other.Schema
	}
	return s.Version > other.Version
}

// Snapshots keeps at most one [Snapshot] for each stream. [Mem] and the stores of packages sqlite and postgres implement it.
// All methods may be called from many goroutines.
type Snapshots interface {
	// SaveSnapshot keeps the snapshot in place of the one before, unless that is newer; see [Snapshot.Newer].
	// A name that no stream can have makes an error that wraps [ErrInvalid].
	SaveSnapshot(ctx context.Context, s Snapshot) error

	// LoadSnapshot returns the snapshot of a stream, or the zero Snapshot if there is none.
	LoadSnapshot(ctx context.Context, stream Stream) (Snapshot, error)
}

// A snapshotter takes the snapshots of a Repo behind the backs of its callers.
type snapshotter[S any] struct {
	store  Snapshots // nil if none are kept
	schema int
	every  Version
	log    *slog.Logger

	mu      sync.Mutex
	pending map[Stream]versioned[S] // the latest state of each stream that is due
	running bool
	closed  bool
	work    sync.WaitGroup // run
	refused bool           // the state does not survive JSON: said once, not at every snapshot
}

// maxPending bounds the states that wait to be saved. One that finds no room comes round again after every more events.
const maxPending = 256

func (s *snapshotter[S]) init(store Snapshots, schema, every int, log *slog.Logger) {
	s.store, s.schema, s.every, s.log = store, schema, Version(every), log
	s.pending = make(map[Stream]versioned[S])
}

// close lets no further snapshots be taken, and waits for those that are due.
func (s *snapshotter[S]) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Wait()
}

// load returns the state in the snapshot of a stream, if there is one that fits.
func (s *snapshotter[S]) load(ctx context.Context, stream Stream, upTo Version) (at versioned[S], found bool) {
	if s.store == nil {
		return at, false
	}
	snapshot, err := s.store.LoadSnapshot(ctx, stream)
	if err != nil {
		s.log.Warn("es: snapshot not loaded, reading all events instead", "stream", stream.String(), "err", err)
		return at, false
	}
	if snapshot.Version == 0 || snapshot.Version > upTo || snapshot.Schema != s.schema {
		return at, false
	}
	var kept kept
	err = guarded(func() error {
		if err := json.Unmarshal(snapshot.Data, &kept); err != nil {
			return err
		}
		return json.Unmarshal(kept.State, &at.state)
	})
	if err != nil {
		s.log.Warn("es: snapshot is broken, reading all events instead", "stream", stream.String(), "version", snapshot.Version, "err", err)
		return versioned[S]{}, false
	}
	at.version, at.position, at.digest = snapshot.Version, snapshot.Position, kept.Digest
	return at, true
}

// consider takes a snapshot if one fell due on the way from one version to a state.
func (s *snapshotter[S]) consider(stream Stream, from Version, at versioned[S]) {
	if s.store == nil || at.version/s.every == from/s.every {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	later, due := s.pending[stream]
	if s.refused || s.closed || due && later.version/s.every >= at.version/s.every || !due && len(s.pending) == maxPending {
		return
	}
	s.pending[stream] = at
	if !s.running {
		s.running = true
		s.work.Go(s.run)
	}
}

func (s *snapshotter[S]) run() {
	for {
		s.mu.Lock()
		var stream Stream
		var at versioned[S]
		for stream, at = range s.pending {
			break
		}
		if at.version == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		delete(s.pending, stream)
		s.mu.Unlock()
		s.save(stream, at)
	}
}

func (s *snapshotter[S]) save(stream Stream, at versioned[S]) {
	data, err := storable(at)
	if err != nil {
		s.log.Error("es: no snapshots are kept", "stream", stream.String(), "type", reflect.TypeFor[S]().String(), "err", err)
		s.mu.Lock()
		s.refused = true
		clear(s.pending)
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err = s.store.SaveSnapshot(ctx, Snapshot{Stream: stream, Version: at.version, Position: at.position, Schema: s.schema, Data: data})
	if err != nil {
		s.log.Warn("es: snapshot not saved", "stream", stream.String(), "version", at.version, "err", err)
	}
}

// A kept is the data of a snapshot: the state, and the digest of the last event in it.
type kept struct {
	Digest uint64
	State  json.RawMessage
}

// storable returns the JSON of a state, if that brings back an equal one.
func storable[S any](at versioned[S]) (data []byte, err error) {
	err = guarded(func() error {
		state, err := json.Marshal(at.state)
		if err != nil {
			return err
		}
		var back S
		if err := json.Unmarshal(state, &back); err != nil {
			return err
		}
		if data, err = json.Marshal(kept{at.digest, state}); err != nil {
			return err
		}
		if !reflect.DeepEqual(at.state, back) {
			return errors.New("the state does not come back from JSON as it was: export its fields, or give its type MarshalJSON and UnmarshalJSON")
		}
		return nil
	})
	return data, err
}

// guarded runs the user's code and makes an error of its panic.
func guarded(f func() error) (err error) {
	if p := protect(func() { err = f() }); p != nil {
		return p
	}
	return err
}
