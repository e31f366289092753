package conformance_test

import (
	"context"
	"errors"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
)

const (
	reactionBegins = "new reaction says where it begins"
	stepsApart     = "commands of reactions and steps are kept apart"
	stepsOnce      = "command of a reaction takes effect once"
	stepsAgain     = "Replay repeats the commands of a reaction"
	stepsCarry     = "command of a reaction carries metadata"
)

// triggering adds triggers to the tables of the engine. The database must be in memory.
func triggering(triggers ...string) func(*faultySide) {
	return func(f *faultySide) {
		for _, sql := range triggers {
			if _, err := f.DB().ExecContext(context.Background(), sql); err != nil {
				panic(err)
			}
		}
	}
}

// beginning changes where reactions begin.
func beginning(change func(r *projection.Reaction)) func(*faultySide) {
	return func(f *faultySide) {
		f.onReact = func(ctx context.Context, r projection.Reaction) error {
			change(&r)
			return f.Store.React(ctx, r)
		}
	}
}

func (w workshop) brokenSteps() []defect[conformance.Listed] {
	inserted := func(set string) string {
		return "create trigger broken after insert on es_projections begin update es_projections set " + set + " where name = new.name; end"
	}
	return []defect[conformance.Listed]{
		w.broken("a reaction begins at the beginning unasked", reactionBegins, beginning(func(r *projection.Reaction) {
			if r.From == (projection.Start{}) {
				r.From = projection.Beginning()
			}
		})),
		w.broken("a reaction always begins at the head", reactionBegins, beginning(func(r *projection.Reaction) {
			if r.From != (projection.Start{}) {
				r.From = projection.Head()
			}
		})),
		w.broken("a reaction begins anew at each start", reactionBegins, func(f *faultySide) {
			f.onReact = func(ctx context.Context, r projection.Reaction) error {
				if err := f.Store.Forget(ctx, r.Name, 0); err != nil && !errors.Is(err, es.ErrInvalid) {
					return err
				}
				return f.Store.React(ctx, r)
			}
		}),
		w.broken("all reactions have one identity", stepsApart, triggering(inserted("identity = 'all.1'"))),
		w.broken("the identity of a reaction is its name", stepsOnce, triggering(inserted("identity = new.name"))),
		w.broken("an identity ends with Rename", stepsOnce,
			triggering("create trigger broken after update of name on es_projections begin update es_projections set identity = 'other.1' where name = new.name; end")),
		w.broken("Replay keeps the identity", stepsAgain,
			triggering("create trigger broken after update of identity on es_projections begin update es_projections set identity = old.identity where name = new.name; end")).blocking(),
		w.broken("a reaction carries nothing", stepsCarry, beginning(func(r *projection.Reaction) { r.Carry = nil })),
		w.broken("a reaction carries everything", stepsCarry, beginning(func(r *projection.Reaction) { r.Carry = []string{"user", "traceparent"} })),
	}
}
