package conformance_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

const (
	beginsAtZero   = "missing checkpoint is at 0"
	movesBothWays  = "checkpoint can be moved forwards and back"
	notFromElse    = "checkpoint moves only from its current position"
	oneMoves       = "one caller wins a race to move a checkpoint"
	noMoveLost     = "no move of a checkpoint is lost"
	checkpointName = "checkpoint names are kept byte by byte"
	sharedCheck    = "checkpoints are visible through every store"
	checkObeys     = "checkpoints obey the context"
	checkIsNone    = "invalid checkpoint is refused"
)

// faultyCheckpoints is an es.Mem with a defect in its checkpoints.
type faultyCheckpoints struct {
	*es.Mem
	onLoad func(ctx context.Context, name string) (es.Position, error)
	onMove func(ctx context.Context, name string, from, to es.Position) (bool, error)
}

func (f *faultyCheckpoints) LoadCheckpoint(ctx context.Context, name string) (es.Position, error) {
	if f.onLoad != nil {
		return f.onLoad(ctx, name)
	}
	return f.Mem.LoadCheckpoint(ctx, name)
}

func (f *faultyCheckpoints) MoveCheckpoint(ctx context.Context, name string, from, to es.Position) (bool, error) {
	if f.onMove != nil {
		return f.onMove(ctx, name, from, to)
	}
	return f.Mem.MoveCheckpoint(ctx, name, from, to)
}

func TestEveryDefectOfCheckpointsIsCaughtByItsClause(t *testing.T) {
	catch(t, brokenCheckpoints(), conformance.CheckpointClauses(), conformance.Clause.TryCheckpoints)
}

// moving returns a defect of MoveCheckpoint.
func moving(name, clause string, do func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error)) defect[es.Checkpoints] {
	return defect[es.Checkpoints]{name: name, clause: clause, database: func() func() es.Checkpoints {
		m := new(es.Mem)
		return func() es.Checkpoints {
			return &faultyCheckpoints{Mem: m, onMove: func(ctx context.Context, name string, from, to es.Position) (bool, error) {
				return do(ctx, m, name, from, to)
			}}
		}
	}}
}

// at returns the position of a checkpoint.
func at(m *es.Mem, name string) es.Position {
	position, err := m.LoadCheckpoint(context.Background(), name)
	if err != nil {
		panic(err)
	}
	return position
}

func brokenCheckpoints() []defect[es.Checkpoints] {
	none := errors.New("no rows in result set")
	return []defect[es.Checkpoints]{
		{name: "a missing checkpoint is an error", clause: beginsAtZero, database: func() func() es.Checkpoints {
			m := new(es.Mem)
			f := &faultyCheckpoints{Mem: m, onLoad: func(ctx context.Context, name string) (es.Position, error) {
				position, err := m.LoadCheckpoint(ctx, name)
				if position == 0 && err == nil {
					err = none
				}
				return position, err
			}}
			return func() es.Checkpoints { return f }
		}, also: []string{movesBothWays, notFromElse, noMoveLost, checkObeys, checkIsNone}},
		moving("a checkpoint only grows", movesBothWays, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			if to < from && to >= 0 {
				return false, ended(ctx)
			}
			return m.MoveCheckpoint(ctx, name, from, to)
		}),
		moving("positions have 32 bits", movesBothWays, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			return m.MoveCheckpoint(ctx, name, es.Position(int32(from)), es.Position(int32(to)))
		}).noticedBy(notFromElse),
		moving("positions are floating-point numbers", movesBothWays, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			return m.MoveCheckpoint(ctx, name, es.Position(float64(from)), es.Position(float64(to)))
		}),
		moving("a move to the current position returns false", movesBothWays, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			moved, err := m.MoveCheckpoint(ctx, name, from, to)
			return moved && from != to, err
		}),
		moving("the old position is not compared", notFromElse, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			if err := errors.Join(es.CheckCheckpoint(name, from, to), ended(ctx)); err != nil {
				return false, err
			}
			for !must(m.MoveCheckpoint(ctx, name, at(m, name), to)) { // until it succeeds
			}
			return true, nil
		}).noticedBy(oneMoves, noMoveLost),
		moving("a move from another position is an error", notFromElse, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			moved, err := m.MoveCheckpoint(ctx, name, from, to)
			if !moved && err == nil {
				err = none
			}
			return moved, err
		}).noticedBy(oneMoves, noMoveLost),
		moving("a move from 0 replaces an existing checkpoint", notFromElse, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			if from == 0 && ctx.Err() == nil && es.CheckCheckpoint(name, from, to) == nil {
				from = at(m, name)
			}
			return m.MoveCheckpoint(ctx, name, from, to)
		}).noticedBy(oneMoves),
		moving("the old position is compared before the lock", oneMoves, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			if ctx.Err() != nil || es.CheckCheckpoint(name, from, to) != nil || at(m, name) != from {
				return m.MoveCheckpoint(ctx, name, from, to)
			}
			window()
			return m.MoveCheckpoint(ctx, name, at(m, name), to)
		}).noticedBy(noMoveLost),
		moving("two moves to the same position both succeed", noMoveLost, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			late := ctx.Err() == nil && es.CheckCheckpoint(name, from, to) == nil && at(m, name) == from
			window()
			moved, err := m.MoveCheckpoint(ctx, name, from, to)
			return moved || late && err == nil && at(m, name) == to, err
		}),
		moving("names ignore case", checkpointName, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			if es.CheckCheckpoint(name, from, to) == nil {
				name = strings.ToLower(name)
			}
			return m.MoveCheckpoint(ctx, name, from, to)
		}),
		{name: "a store caches checkpoints", clause: sharedCheck, database: func() func() es.Checkpoints {
			m := new(es.Mem)
			return func() es.Checkpoints {
				var known table[es.Position]
				f := &faultyCheckpoints{Mem: m}
				f.onLoad = func(ctx context.Context, name string) (es.Position, error) {
					if position, found := known.get(name); found {
						return position, ended(ctx)
					}
					return m.LoadCheckpoint(ctx, name)
				}
				f.onMove = func(ctx context.Context, name string, from, to es.Position) (bool, error) {
					moved, err := m.MoveCheckpoint(ctx, name, from, to)
					if err == nil && moved {
						known.put(name, to)
					} else if err == nil {
						known.put(name, at(m, name))
					}
					return moved, err
				}
				return f
			}
		}, also: []string{noMoveLost}},
		moving("contexts are ignored", checkObeys, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			return m.MoveCheckpoint(context.WithoutCancel(ctx), name, from, to)
		}),
		moving("invalid positions are accepted", checkIsNone, func(ctx context.Context, m *es.Mem, name string, from, to es.Position) (bool, error) {
			return m.MoveCheckpoint(ctx, name, max(from, 0), max(to, 0))
		}),
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
