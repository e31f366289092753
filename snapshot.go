package es

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Snapshot is the state of a stream at a version. It is a cache: a missing or unusable snapshot only slows a load.
type Snapshot struct {
	Stream   Stream
	Version  Version  // of the last event in the state
	Position Position // of that event; the snapshot is used only if the log has that version there
	Schema   int      // [Repo.SnapshotSchema]
	Data     []byte
}

// Newer reports whether s replaces other: it has a higher schema, or the same schema and a higher version.
// During a deployment the old program therefore does not replace snapshots of the new one.
func (s Snapshot) Newer(other Snapshot) bool {
	if s.Schema != other.Schema {
		return s.Schema > other.Schema
	}
	return s.Version > other.Version
}

// Snapshots keep at most one [Snapshot] per stream.
//
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called concurrently.
//
// Not for users to implement: it may gain methods.
type Snapshots interface {
	// SaveSnapshot saves a snapshot, unless the one it would replace is newer; see [Snapshot.Newer].
	// An invalid stream name is an error that wraps [ErrInvalid].
	SaveSnapshot(ctx context.Context, s Snapshot) error

	// LoadSnapshot returns the snapshot of a stream, or the zero Snapshot if there is none.
	LoadSnapshot(ctx context.Context, stream Stream) (Snapshot, error)
}

// snapshotter saves the snapshots of a Repo in the background.
type snapshotter[S any] struct {
	store  Snapshots // nil if none are kept
	schema int
	layout uint64 // of S
	every  Version
	log    *slog.Logger
	ctx    context.Context // of all saves
	cancel context.CancelFunc

	mu      sync.Mutex
	pending map[Stream]state[S] // the latest state to save, by stream
	running bool
	closed  bool
	failed  bool           // a state did not survive JSON; logged once
	saving  sync.WaitGroup // run
}

// maxPending is the number of states that wait to be saved. A state dropped for lack of room is considered again after
// SnapshotEvery more events.
const maxPending = 256

// saveTimeout is the time that one save may take.
const saveTimeout = 30 * time.Second

func (s *snapshotter[S]) init(store Snapshots, schema, every int, log *slog.Logger) {
	s.store, s.schema, s.every, s.log = store, schema, Version(every), log
	s.layout = layoutOf(reflect.TypeFor[S]())
	s.pending = make(map[Stream]state[S])
	s.ctx, s.cancel = context.WithCancel(context.Background())
}

// close rejects further snapshots and waits for pending ones.
func (s *snapshotter[S]) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.saving.Wait()
}

// abandon drops pending snapshots and cancels the save in flight.
func (s *snapshotter[S]) abandon() {
	s.mu.Lock()
	s.closed = true
	clear(s.pending)
	s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
}

// load returns the state of a stream's snapshot, if there is a suitable one.
func (s *snapshotter[S]) load(ctx context.Context, stream Stream, upTo Version) (at state[S], found bool) {
	if s.store == nil {
		return at, false
	}
	snapshot, err := s.store.LoadSnapshot(ctx, stream)
	if err != nil {
		s.log.Warn("es: cannot load snapshot, reading all events", "stream", stream.String(), "err", err)
		return at, false
	}
	if snapshot.Version == 0 || snapshot.Version > upTo || snapshot.Schema != s.schema {
		return at, false
	}
	var data snapshotData
	err = json.Unmarshal(snapshot.Data, &data)
	if err == nil && data.Layout != s.layout {
		s.log.Info("es: snapshot of another state layout, reading all events", "stream", stream.String(), "version", snapshot.Version)
		return at, false
	}
	if err == nil {
		err = guarded(func() error { return json.Unmarshal(data.State, &at.State) })
	}
	if err != nil {
		s.log.Warn("es: corrupt snapshot, reading all events", "stream", stream.String(), "version", snapshot.Version, "err", err)
		return state[S]{}, false
	}
	at.Version, at.Position, at.digest = snapshot.Version, snapshot.Position, data.Digest
	return at, true
}

// consider schedules a snapshot of a state if one became due since an earlier version.
func (s *snapshotter[S]) consider(stream Stream, from Version, at state[S]) {
	if s.store == nil || at.Version/s.every == from/s.every {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	scheduled, due := s.pending[stream]
	if s.closed || due && scheduled.Version/s.every >= at.Version/s.every || !due && len(s.pending) == maxPending {
		return
	}
	s.pending[stream] = at
	if !s.running {
		s.running = true
		s.saving.Go(s.run)
	}
}

func (s *snapshotter[S]) run() {
	for {
		s.mu.Lock()
		var stream Stream
		var at state[S]
		for stream, at = range s.pending {
			break
		}
		if at.Version == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		delete(s.pending, stream)
		s.mu.Unlock()
		s.save(stream, at)
	}
}

func (s *snapshotter[S]) save(stream Stream, at state[S]) {
	data, err := encodeSnapshot(at, s.layout)
	if err != nil {
		s.mu.Lock()
		first := !s.failed
		s.failed = true
		s.mu.Unlock()
		if first {
			s.log.Error("es: cannot save a snapshot of this state, nor of others like it", "stream", stream.String(),
				"type", reflect.TypeFor[S]().String(), "err", err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, saveTimeout)
	defer cancel()
	err = s.store.SaveSnapshot(ctx, Snapshot{Stream: stream, Version: at.Version, Position: at.Position, Schema: s.schema, Data: data})
	if err != nil {
		s.log.Warn("es: cannot save snapshot", "stream", stream.String(), "version", at.Version, "err", err)
	}
}

// snapshotData is the data of a snapshot: the state, the layout of its type, and the digest of the last event in it.
type snapshotData struct {
	Digest uint64
	Layout uint64
	State  json.RawMessage
}

// encodeSnapshot encodes a state and verifies that it survives the round trip.
func encodeSnapshot[S any](at state[S], layout uint64) (data []byte, err error) {
	err = guarded(func() error {
		encoded, err := json.Marshal(at.State)
		if err != nil {
			return err
		}
		var back S
		if err := json.Unmarshal(encoded, &back); err != nil {
			return err
		}
		if data, err = json.Marshal(snapshotData{at.digest, layout, encoded}); err != nil {
			return err
		}
		if !reflect.DeepEqual(at.State, back) {
			return errors.New("state does not survive a JSON round trip: export its fields, or give its type MarshalJSON and UnmarshalJSON methods")
		}
		return nil
	})
	return data, err
}

// guarded runs code of the user and returns its panic as an error.
func guarded(f func() error) (err error) {
	if p := protect(func() { err = f() }); p != nil {
		return p
	}
	return err
}

// layoutOf returns a fingerprint of how JSON encodes a type: its fields, their tags and types, and so on within.
// The names of types do not count, except of those that encode themselves.
func layoutOf(t reflect.Type) uint64 {
	h := fnv.New64a()
	describe(h, t, nil)
	return h.Sum64()
}

func describe(w io.Writer, t reflect.Type, within []reflect.Type) {
	if i := slices.Index(within, t); i >= 0 {
		fmt.Fprintf(w, "^%d", len(within)-i)
		return
	}
	within = append(within, t)
	if implements(t, marshalers) || implements(reflect.PointerTo(t), marshalers) {
		fmt.Fprintf(w, "%s.%s", t.PkgPath(), t)
		return
	}
	fmt.Fprintf(w, "%s(", t.Kind())
	switch t.Kind() {
	case reflect.Map:
		describe(w, t.Key(), within)
		fmt.Fprint(w, ":")
		describe(w, t.Elem(), within)
	case reflect.Array:
		fmt.Fprint(w, t.Len(), " ")
		describe(w, t.Elem(), within)
	case reflect.Pointer, reflect.Slice:
		describe(w, t.Elem(), within)
	case reflect.Struct:
		for f := range t.Fields() {
			fmt.Fprintf(w, "%s %t %q ", f.Name, f.Anonymous, f.Tag.Get("json"))
			describe(w, f.Type, within)
			fmt.Fprint(w, ";")
		}
	}
	fmt.Fprint(w, ")")
}
