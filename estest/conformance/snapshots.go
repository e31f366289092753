package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
)

// snapshotClauses test snapshots.
func snapshotClauses() []clause {
	return []clause{
		{"missing snapshot is the zero Snapshot",
			"A missing snapshot is not an error: most streams are too short to have one.",
			noSnapshot},
		{"snapshot is loaded as it was saved",
			"Version and Position say which event the state reflects, and Schema which program can read it. If one is wrong, a Repo starts from the wrong state or reads all events again.",
			snapshotAsSaved},
		{"snapshot data is kept byte by byte",
			"Snapshot data may be any bytes. A store that treats it as text corrupts the state.",
			snapshotData},
		{"older snapshot does not replace a newer one",
			"A snapshot is newer if its schema is higher, or equal with a higher version (es.Snapshot.Newer). Saving an older one succeeds and changes nothing; otherwise old and new programs overwrite each other's snapshots during a deployment.",
			newerIsKept},
		{"newest snapshot remains after a race",
			"Several processes may save snapshots of one stream at once. A store that compares before it locks keeps an old one.",
			snapshotRace},
		{"each stream has its own snapshot",
			"Stream names are compared byte by byte. If two streams share a snapshot, one customer gets the state of another.",
			snapshotOfItsStream},
		{"snapshots are visible through every store",
			"A snapshot that one process saved spares the others reading the events.",
			snapshotsShared},
		{"snapshot data is copied",
			"The caller may change the data after saving it and after loading it. A store that shares the memory returns a corrupt state to the next caller.",
			snapshotMemory},
		{"snapshots obey the context",
			"A caller that has given up gets the context's error and does not wait for a database that does not answer.",
			snapshotContext},
		{"snapshot of an invalid stream is refused",
			"The limits of package es hold for snapshots too. The error wraps es.ErrInvalid.",
			snapshotOfBadStream},
	}
}

func (t *trial) save(s es.Snapshots, snapshot es.Snapshot) {
	if err := s.SaveSnapshot(t.ctx, snapshot); err != nil {
		t.Fatalf("SaveSnapshot of %s at version %d returned %v", snapshot.Stream, snapshot.Version, err)
	}
}

func (t *trial) load(s es.Snapshots, stream es.Stream) es.Snapshot {
	snapshot, err := s.LoadSnapshot(t.ctx, stream)
	if err != nil {
		t.Fatalf("LoadSnapshot(%s) returned %v", stream, err)
	}
	if len(snapshot.Data) == 0 {
		snapshot.Data = nil // nil and empty are the same
	}
	return snapshot
}

func noSnapshot(t *trial) {
	s := t.snapshots()
	t.equal("the snapshot of a stream in an empty store", t.load(s, stream("none")), es.Snapshot{})
	t.save(s, es.Snapshot{Stream: stream("a"), Version: 1, Position: 1})
	t.equal("the missing snapshot of a stream when another stream has one", t.load(s, stream("none")), es.Snapshot{})
}

func snapshotAsSaved(t *trial) {
	s := t.snapshots()
	for i, want := range []es.Snapshot{
		{Version: 1, Position: 1, Schema: 0, Data: []byte(`{"balance": 1}`)},
		{Version: 100, Position: 5000, Schema: 3, Data: []byte("state")},
		{Version: 1 << 40, Position: 1 << 50, Schema: 1<<31 - 1},
	} {
		want.Stream = stream(fmt.Sprint(i))
		t.save(s, want)
		t.equal("the snapshot", t.load(s, want.Stream), want)
	}
}

func snapshotData(t *trial) {
	s := t.snapshots()
	for i, want := range [][]byte{nil, {}, {0}, pattern(256), []byte("{ \"b\":1.0, \"a\" : 1e2}\n"), []byte("\xff"), pattern(1 << 20)} {
		t.save(s, es.Snapshot{Stream: stream("a"), Version: es.Version(i + 1), Position: 1, Data: want})
		if got := t.load(s, stream("a")).Data; !bytes.Equal(got, want) {
			t.Errorf("%d bytes of data, %.60q, were loaded as %d, %.60q", len(want), want, len(got), got)
		}
	}
}

func newerIsKept(t *trial) {
	s := t.snapshots()
	var kept es.Snapshot
	for i, step := range []struct {
		schema  int
		version es.Version
	}{{1, 10}, {1, 9}, {1, 20}, {1, 20}, {0, 30}, {2, 5}, {1, 40}, {2, 4}, {2, 6}, {-1, 50}, {3, 1}} {
		saved := es.Snapshot{Stream: stream("a"), Version: step.version, Position: es.Position(step.version), Schema: step.schema, Data: []byte(fmt.Sprint(i))}
		t.save(s, saved)
		if !kept.Newer(saved) || i == 0 {
			kept = saved
		}
		got := t.load(s, stream("a"))
		if got.Schema != kept.Schema || got.Version != kept.Version || string(got.Data) != string(kept.Data) {
			t.Fatalf("after step %d, saving schema %d version %d, the store has schema %d version %d of step %s: want schema %d version %d of step %s",
				i, saved.Schema, saved.Version, got.Schema, got.Version, got.Data, kept.Schema, kept.Version, kept.Data)
		}
	}
}

func snapshotRace(t *trial) {
	const savers = 16
	stores := []es.Snapshots{t.snapshots(), t.snapshots()}
	for round := range 5 {
		a := stream(fmt.Sprint(round))
		t.race(savers, func(i int) {
			t.save(stores[i%len(stores)], es.Snapshot{Stream: a, Version: es.Version(savers - i), Position: 1})
		})
		if got := t.load(stores[0], a).Version; got != savers {
			t.Fatalf("after versions 1 to %d were saved at once, the store has version %d", savers, got)
		}
	}
}

func snapshotOfItsStream(t *trial) {
	s := t.snapshots()
	var streams []es.Stream
	for _, name := range oddNames() {
		streams = append(streams, es.Stream{Kind: "id", ID: name}, es.Stream{Kind: name, ID: "kind"})
	}
	for i, stream := range streams {
		t.save(s, es.Snapshot{Stream: stream, Version: es.Version(i + 1), Position: 1, Data: []byte(stream.ID)})
	}
	for i, stream := range streams {
		t.equal(fmt.Sprintf("the snapshot of %+q", stream), t.load(s, stream), es.Snapshot{Stream: stream, Version: es.Version(i + 1), Position: 1, Data: []byte(stream.ID)})
	}
}

func snapshotsShared(t *trial) {
	a, b := t.snapshots(), t.snapshots()
	for version := es.Version(1); version < 10; version++ {
		want := es.Snapshot{Stream: stream("a"), Version: version, Position: 1}
		t.save(a, want)
		t.equal("the snapshot that another store loads", t.load(b, want.Stream), want)
		a, b = b, a
	}
}

func snapshotMemory(t *trial) {
	s := t.snapshots()
	given := []byte("as it was")
	t.save(s, es.Snapshot{Stream: stream("a"), Version: 1, Position: 1, Data: given})
	copy(given, "CHANGE")
	loaded := t.load(s, stream("a")).Data
	t.equal("the data, after the caller reused its memory", string(loaded), "as it was")
	copy(loaded, "CHANGE")
	t.equal("the data, after a reader changed its copy", string(t.load(s, stream("a")).Data), "as it was")
}

func snapshotContext(t *trial) {
	s := t.snapshots()
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	t.blames("SaveSnapshot", func(ctx context.Context) error {
		return s.SaveSnapshot(ctx, es.Snapshot{Stream: stream("a"), Version: 1, Position: 1})
	})
	t.blames("LoadSnapshot", func(ctx context.Context) error { return second(s.LoadSnapshot(ctx, stream("a"))) })
	if err := s.SaveSnapshot(ctx, es.Snapshot{Stream: stream("a"), Version: 1, Position: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("SaveSnapshot with a cancelled context returned %v: want an error that wraps context.Canceled", err)
	}
	if _, err := s.LoadSnapshot(ctx, stream("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadSnapshot with a cancelled context returned %v: want an error that wraps context.Canceled", err)
	}
}

func snapshotOfBadStream(t *trial) {
	s := t.snapshots()
	for _, stream := range []es.Stream{{}, {Kind: "estest"}, {Kind: "es/test", ID: "a"}, {Kind: "estest", ID: "a\x00b"}, {Kind: "estest", ID: "a\xffb"}} {
		if err := s.SaveSnapshot(t.ctx, es.Snapshot{Stream: stream, Version: 1, Position: 1}); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("SaveSnapshot of %+q returned %v: want an error that wraps es.ErrInvalid", stream, err)
		}
	}
}
