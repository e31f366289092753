package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/thalo-go/es"
)

// checkpointClauses test checkpoints.
func checkpointClauses() []clause {
	return []clause{
		{"missing checkpoint is at 0",
			"0 is the beginning of the log, where a new reader starts.",
			noCheckpoint},
		{"checkpoint can be moved forwards and back",
			"Moving back makes a reader read again. Every position that a log can have must be kept exactly.",
			checkpointMoved},
		{"checkpoint moves only from its current position",
			"MoveCheckpoint is a compare-and-set. If the checkpoint is elsewhere, another reader has moved it: the call returns false without an error and changes nothing. Otherwise a paused reader sets it back.",
			checkpointElsewhere},
		{"one caller wins a race to move a checkpoint",
			"Two readers that handled the same records move the checkpoint from the same position. If both succeed, both continue and handle every record twice.",
			checkpointRace},
		{"no move of a checkpoint is lost",
			"Every move starts where the previous one ended. A store that checks before it locks lets two moves end as one.",
			checkpointChain},
		{"checkpoint names are kept byte by byte",
			"If two names share a checkpoint, one reader moves it and the other skips records.",
			checkpointNames},
		{"checkpoints are visible through every store",
			"The reader that takes over runs in another process than the one that died.",
			checkpointsShared},
		{"checkpoints obey the context",
			"A caller that has given up gets the context's error and does not wait for a database that does not answer.",
			checkpointContext},
		{"invalid checkpoint is refused",
			"es.CheckCheckpoint defines what is valid, and the error wraps es.ErrInvalid. No reader can start at a position below 0.",
			checkpointRefused},
	}
}

func (t *trial) checkpoint(s es.Checkpoints, name string) es.Position {
	position, err := s.LoadCheckpoint(t.ctx, name)
	if err != nil {
		t.Fatalf("LoadCheckpoint(%q) returned %v", name, err)
	}
	return position
}

func (t *trial) move(s es.Checkpoints, name string, from, to es.Position) bool {
	moved, err := s.MoveCheckpoint(t.ctx, name, from, to)
	if err != nil {
		t.Fatalf("MoveCheckpoint(%q, %d, %d) returned %v", name, from, to, err)
	}
	return moved
}

// moves moves a checkpoint from its current position.
func (t *trial) moves(s es.Checkpoints, name string, from, to es.Position) {
	if !t.move(s, name, from, to) {
		t.Fatalf("MoveCheckpoint(%q, %d, %d) returned false, as if the checkpoint were not at %d: it is at %d", name, from, to, from, t.checkpoint(s, name))
	}
	t.equal(fmt.Sprintf("the checkpoint %q after it was moved from %d to %d", name, from, to), t.checkpoint(s, name), to)
}

func noCheckpoint(t *trial) {
	s := t.checkpoints()
	t.equal("a checkpoint in an empty database", t.checkpoint(s, "a"), es.Position(0))
	t.moves(s, "b", 0, 7)
	t.equal("a missing checkpoint when there is another", t.checkpoint(s, "a"), es.Position(0))
}

func checkpointMoved(t *trial) {
	s := t.checkpoints()
	at := es.Position(0)
	for _, to := range []es.Position{0, 0, 1, 2, 2, 1000, 3, 0, 5, 1 << 31, 1 << 32, 1<<53 + 1, 1<<62 + 1, 1} {
		t.moves(s, "a", at, to)
		at = to
	}
}

func checkpointElsewhere(t *trial) {
	s := t.checkpoints()
	for _, at := range []es.Position{0, 5} {
		if at > 0 {
			t.moves(s, "a", 0, at)
		}
		for _, from := range []es.Position{0, 1, 4, 6, 1 << 40} {
			for _, to := range []es.Position{0, 1, 7} {
				if from == at {
					continue
				}
				if t.move(s, "a", from, to) {
					t.Errorf("MoveCheckpoint from %d to %d returned true: the checkpoint was at %d", from, to, at)
				}
				if now := t.checkpoint(s, "a"); now != at {
					t.Fatalf("MoveCheckpoint from %d to %d has moved the checkpoint from %d to %d", from, to, at, now)
				}
			}
		}
	}
}

func checkpointRace(t *trial) {
	stores := []es.Checkpoints{t.checkpoints(), t.checkpoints(), t.checkpoints()}
	at := es.Position(0)
	for round := range 10 {
		const readers = 12
		var moved atomic.Int32
		var to atomic.Int64
		t.race(readers, func(i int) {
			mine := at + 1 + es.Position(i)
			if t.move(stores[i%len(stores)], "a", at, mine) {
				moved.Add(1)
				to.Store(int64(mine))
			}
		})
		if moved.Load() != 1 {
			t.Fatalf("in round %d, %d of %d readers moved the checkpoint from %d: want one", round, moved.Load(), readers, at)
		}
		at = t.checkpoint(stores[0], "a")
		t.equal("the checkpoint", at, es.Position(to.Load()))
	}
}

func checkpointChain(t *trial) {
	stores := []es.Checkpoints{t.checkpoints(), t.checkpoints(), t.checkpoints()}
	const readers, each = 6, 5
	t.race(readers, func(i int) {
		s := stores[i%len(stores)]
		for moved := 0; moved < each; {
			at := t.checkpoint(s, "a")
			if t.move(s, "a", at, at+1) {
				moved++
			}
		}
	})
	t.equal(fmt.Sprintf("the checkpoint, after %d readers moved it by 1 %d times each", readers, each), t.checkpoint(stores[0], "a"), es.Position(readers*each))
}

func checkpointNames(t *trial) {
	s := t.checkpoints()
	names := append(oddNames(), strings.Repeat("n", es.MaxID))
	for i, name := range names {
		t.moves(s, name, 0, es.Position(i+1))
	}
	for i, name := range names {
		t.equal(fmt.Sprintf("the checkpoint %+q", name), t.checkpoint(s, name), es.Position(i+1))
	}
}

func checkpointsShared(t *trial) {
	a, b := t.checkpoints(), t.checkpoints()
	for at := range es.Position(6) {
		t.moves(a, "a", at, at+1)
		t.equal("the checkpoint through another store", t.checkpoint(b, "a"), at+1)
		a, b = b, a
	}
}

func checkpointContext(t *trial) {
	s := t.checkpoints()
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	t.blames("MoveCheckpoint", func(ctx context.Context) error { return second(s.MoveCheckpoint(ctx, "a", 0, 1)) })
	t.blames("LoadCheckpoint", func(ctx context.Context) error { return second(s.LoadCheckpoint(ctx, "a")) })
	if moved, err := s.MoveCheckpoint(ctx, "a", 0, 1); moved || !errors.Is(err, context.Canceled) {
		t.Errorf("MoveCheckpoint with a cancelled context returned %v, %v: want an error that wraps context.Canceled", moved, err)
	}
	if _, err := s.LoadCheckpoint(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("LoadCheckpoint with a cancelled context returned %v: want an error that wraps context.Canceled", err)
	}
	t.equal("the checkpoint", t.checkpoint(s, "a"), es.Position(0))
}

func checkpointRefused(t *trial) {
	s := t.checkpoints()
	for _, name := range []string{"", "a\x00b", "a\xff", strings.Repeat("n", es.MaxID+1)} {
		if moved, err := s.MoveCheckpoint(t.ctx, name, 0, 1); moved || !errors.Is(err, es.ErrInvalid) {
			t.Errorf("MoveCheckpoint(%+.20q, 0, 1) returned %v, %v: want an error that wraps es.ErrInvalid", name, moved, err)
		}
		t.equal(fmt.Sprintf("the checkpoint %+.20q", name), t.checkpoint(s, name), es.Position(0))
	}
	for _, span := range [][2]es.Position{{0, -1}, {-1, 0}, {-1, -1}, {-1, 1}} {
		if moved, err := s.MoveCheckpoint(t.ctx, "a", span[0], span[1]); moved || !errors.Is(err, es.ErrInvalid) {
			t.Errorf("MoveCheckpoint(\"a\", %d, %d) returned %v, %v: want an error that wraps es.ErrInvalid", span[0], span[1], moved, err)
		}
	}
	t.equal("the checkpoint", t.checkpoint(s, "a"), es.Position(0))
}
