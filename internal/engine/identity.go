package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/projection"
)

// A checkpoint belongs to one thing: a projection or a reaction, of one source, with one filter. The header of the projection says which.
// A run that is something else is refused when it joins. A change that Refilter accepts gives the shards new claims and a new filter mark,
// so a run with the filter before moves no checkpoint from then on: each move compares the claim, and taking a new claim compares the mark.

// sameKind reports whether a run of one kind can continue the checkpoints of another. A projection can be run inside appends, and back.
// An empty kind is not known.
func sameKind(a, b projection.Kind) bool {
	return a == "" || b == "" || (a == projection.KindReaction) == (b == projection.KindReaction)
}

// newIdentity returns the identity of the first run of a reaction. It is random, because a name can be given again: to another reaction, or
// in another database. Then both have commands of their own.
func newIdentity() string { return rand.Text()[:12] + ".1" }

// nextIdentity returns the identity of another run of a reaction that does everything again.
func nextIdentity(identity string) string {
	base, number, _ := strings.Cut(identity, ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return newIdentity()
	}
	return fmt.Sprintf("%s.%d", base, n+1)
}

// header returns what the task is. The identity is that of a first run.
func (t *task[Tx]) header(partitions int) Header {
	h := Header{Kind: t.kind, Source: t.source.ID(), Filter: t.canonical, Prepares: PreparesNo, Partitions: partitions, Barrier: -1}
	if t.prepare != nil {
		h.Prepares = PreparesYes
	}
	if t.kind == projection.KindReaction {
		h.Identity, h.Delays = newIdentity(), t.due != nil
	}
	return h
}

// refuseKind returns an error if the checkpoints are those of something of another kind.
func (t *task[Tx]) refuseKind(k Key, kind projection.Kind) error {
	if sameKind(kind, t.kind) {
		return nil
	}
	return fmt.Errorf("%w: the name belongs to the %s %s: give another Name, or Rename that one", es.ErrInvalid, kind, k)
}

// refuseFilter returns an error if the checkpoints are those of another filter.
func (t *task[Tx]) refuseFilter(filter string) error {
	if filter == "" || filter == t.canonical {
		return nil
	}
	return fmt.Errorf("%w: its Filter was %.100s, not %.100s: raise Version, or accept the change with Refilter", es.ErrInvalid, filter, t.canonical)
}

// refuseName returns an error if another version of the name is of another kind. It reports whether there are checkpoints.
func (t *task[Tx]) refuseName(ctx context.Context) (found bool, err error) {
	all, err := t.engine.ledger.Checkpoints(ctx, t.key.Name)
	if err != nil {
		return false, err
	}
	for _, c := range all {
		if err := t.refuseKind(c.Key, c.Kind); err != nil {
			return false, err
		}
		found = found || c.Key == t.key
	}
	return found, nil
}

// describe keeps what the task is with the checkpoints, if that is not what they have.
func (t *task[Tx]) describe(ctx context.Context, tx Tx, h Header) error {
	mine := t.header(h.Partitions)
	if h.Kind == mine.Kind && h.Filter == mine.Filter && h.Prepares == mine.Prepares && (h.Delays || !mine.Delays) {
		return nil
	}
	if h.Filter == "" {
		t.log.Info("filter kept with the checkpoint for the first time", "filter", t.canonical)
	}
	return t.engine.ledger.Describe(ctx, tx, t.key, mine)
}

// refusals are the names that this process was refused. A program that waits for a projection which it could not start must not get an
// answer about something else of that name.
type refusals struct {
	mu    sync.Mutex
	names map[string]*refusal
}

type refusal struct {
	running int             // runs of the name
	kind    projection.Kind // of the last run that was refused
	err     error           // nil if a run began after that
}

// begin notes the beginning of a run. The returned function notes its end, with the error if it was refused.
func (r *refusals) begin(name string, kind projection.Kind) (ended func(refused error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil {
		r.names = make(map[string]*refusal)
	}
	if r.names[name] == nil {
		r.names[name] = new(refusal)
	}
	n := r.names[name]
	n.running, n.err = n.running+1, nil
	return func(refused error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		n.running--
		if errors.Is(refused, es.ErrInvalid) {
			n.kind, n.err = kind, refused
		}
		if n.running == 0 && n.err == nil {
			delete(r.names, name)
		}
	}
}

// of returns the refusal of a name whose checkpoints are of a kind, if no run of this process has the name. A reaction that was refused
// the name of a projection is no reason not to wait for the projection.
func (r *refusals) of(name string, kind projection.Kind) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[name]
	if n == nil || n.running > 0 || n.kind == projection.KindReaction && kind != projection.KindReaction {
		return nil
	}
	return n.err
}

// Refilter implements [projection.Admin].
func (e *Engine[Tx]) Refilter(ctx context.Context, name string, version int, filter es.Filter, past projection.Past) (err error) {
	defer cause.Set(ctx, &err)
	if past != projection.SkipPast && past != projection.ReplayPast {
		return fmt.Errorf("es: %w: projection %s: past is %d: give SkipPast or ReplayPast", es.ErrInvalid, Key{name, version}, past)
	}
	canonical := canon.Filter(filter)
	return e.change(ctx, Key{name, version}, func(ctx context.Context, tx Tx, k Key, h Header) error {
		shards, all, err := e.ledger.IdleShards(ctx, tx, k)
		switch replaying := replays(shards); {
		case err != nil:
			return err
		case h.Filter == canonical:
			return nil
		case len(shards) < all && h.Replaced != "", replaying:
			return fmt.Errorf("%w: it replays the past of an earlier change: wait until that is done", es.ErrInvalid)
		case past == projection.ReplayPast && h.Filter == "":
			return fmt.Errorf("%w: its filter in the past is not known: run it with that filter first, or skip the past", es.ErrInvalid)
		}
		return e.ledger.Refilter(ctx, tx, k, canonical, past == projection.ReplayPast)
	})
}

// replays reports whether one of the shards must replay the past.
func replays(shards []Shard) bool {
	return slices.ContainsFunc(shards, func(s Shard) bool { return s.PastEnd > 0 })
}

// Rename implements [projection.Admin].
func (e *Engine[Tx]) Rename(ctx context.Context, old, name string) (err error) {
	defer cause.Set(ctx, &err)
	err = checkName(name)
	if err == nil {
		err = e.rename(ctx, old, name)
	}
	if err != nil {
		return e.about(ctx, old, err)
	}
	e.changed.notify()
	return nil
}

func (e *Engine[Tx]) rename(ctx context.Context, old, name string) error {
	versions, err := e.ledger.Checkpoints(ctx, old)
	if err != nil {
		return err
	}
	if len(versions) == 0 {
		return fmt.Errorf("%w: it does not exist", es.ErrInvalid)
	}
	taken, err := e.ledger.Checkpoints(ctx, name)
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		return fmt.Errorf("%w: %s exists already: give another name, or Forget that one", es.ErrInvalid, taken[0].Key)
	}
	return e.ledger.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		for _, c := range versions {
			h, err := e.ledger.Lock(ctx, tx, c.Key)
			if err != nil {
				return err
			}
			alive, err := e.ledger.Workers(ctx, tx, c.Key)
			switch {
			case err != nil:
				return err
			case !h.Found:
				return fmt.Errorf("%w: it does not exist", es.ErrInvalid)
			case alive > 0:
				return fmt.Errorf("%w: %d workers run it: stop them first", es.ErrInvalid, alive)
			}
		}
		return e.ledger.Rename(ctx, tx, old, name)
	})
}

// Replay implements [projection.Admin].
func (e *Engine[Tx]) Replay(ctx context.Context, name string, version int, from projection.Start) (err error) {
	defer cause.Set(ctx, &err)
	k := Key{name, version}
	known, isKnown := from.Known()
	own, ownErr := from.In(ctx, e.ledger.Log())
	if ownErr != nil && !isKnown {
		return e.about(ctx, k.String(), ownErr)
	}
	return e.change(ctx, k, func(ctx context.Context, tx Tx, k Key, h Header) error {
		to := projection.Cursor(known)
		switch {
		case h.Rebuild:
			return fmt.Errorf("%w: a rebuild of it is requested, which begins at the beginning anyway", es.ErrInvalid)
		case h.Source == e.ledger.Log().ID():
			if ownErr != nil {
				return ownErr
			}
			to = projection.Cursor(own)
		case !isKnown, h.Partitions == 0 && known != 0, known < 0:
			return fmt.Errorf("%w: its source is not the log of this store: only Beginning is possible, or After for another log", es.ErrInvalid)
		}
		if h.Kind == projection.KindReaction && from != projection.Head() { // from the end on, nothing comes again but what is in progress
			if err := e.ledger.SetIdentity(ctx, tx, k, nextIdentity(h.Identity)); err != nil {
				return err
			}
		}
		return e.ledger.Rewind(ctx, tx, k, to)
	})
}

// change locks the header of a projection, changes it, and tells the workers.
func (e *Engine[Tx]) change(ctx context.Context, k Key, do func(ctx context.Context, tx Tx, k Key, h Header) error) error {
	err := e.ledger.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		h, err := e.ledger.Lock(ctx, tx, k)
		if err == nil && !h.Found {
			err = fmt.Errorf("%w: it does not exist", es.ErrInvalid)
		}
		if err != nil {
			return err
		}
		return do(ctx, tx, k, h)
	})
	if err != nil {
		return e.about(ctx, k.String(), err)
	}
	e.changed.notify()
	return nil
}
