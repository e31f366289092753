package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// Inline is the projections that a store runs within its appends.
//
// Each has one shard, that of a projection with one partition, and nobody holds it: whoever appends has the lock under which everybody
// appends, and so knows that the checkpoint is at the end of the log before what he writes. If it is not, somebody has appended who does not
// run the projection, and what he wrote is applied first. The checkpoint is moved by comparing the cursor, as everywhere: whoever runs the same
// projection by Project is in the way, but nothing is applied twice.
type Inline[Tx any] struct {
	engine *Engine[Tx]
	tasks  []*task[Tx]
	page   Pager[Tx]
}

// A Pager reads the log within a transaction: records after a position up to another, in order, at least one and at most so many.
type Pager[Tx any] func(ctx context.Context, tx Tx, after, upTo es.Position, most int) ([]es.Record, error)

// maxBehind is how many positions are caught up within an append. A process that does not run the projection may append as often as one that
// does, in transactions as large, so it is the largest there is; more than that is caught up beforehand, piece by piece.
const maxBehind = es.MaxEvents

// ErrBehind says that an append cannot be written now, because a projection is behind for other reasons than a moment's, or has failed on what
// somebody else has written: [Inline.CatchUp] finds out, with nothing locked.
var ErrBehind = errors.New("an inline projection has to catch up first")

// A RefusedError is what the handler of an inline projection returned for what was to be appended.
type RefusedError struct {
	Projection string
	Err        error
}

func (r *RefusedError) Error() string {
	return fmt.Sprintf("projection %s refused it, nothing was written: %v", r.Projection, r.Err)
}

// Unwrap returns the error of Handle.
func (r *RefusedError) Unwrap() error { return r.Err }

// Refuse returns the refusal of a commit: a constraint that is looked at only then.
func (x *Inline[Tx]) Refuse(err error) *RefusedError {
	names := make([]string, len(x.tasks))
	for i, t := range x.tasks {
		names[i] = t.String()
	}
	return &RefusedError{strings.Join(names, " or "), err}
}

// Idle is how long a transaction may stand still before the database ends it, where it can: it keeps everybody from appending.
func (x *Inline[Tx]) Idle() time.Duration {
	idle := x.tasks[0].lease
	for _, t := range x.tasks {
		idle = min(idle, t.lease)
	}
	return idle
}

// Inline makes ready to run projections within appends.
func (e *Engine[Tx]) Inline(projections []projection.Projection[Tx], page Pager[Tx]) (*Inline[Tx], error) {
	x := &Inline[Tx]{engine: e, page: page}
	for i := range projections {
		p := &projections[i]
		t, err := e.task(*p)
		if err != nil {
			return nil, err
		}
		reason := ""
		switch {
		case p.Source != nil:
			reason = "it has a Source, but is given what is appended: leave Source nil"
		case t.partitions != 1:
			reason = "it has several partitions, but runs in one transaction with all that is appended: leave Partitions 0"
		case p.OnError != es.Stop:
			reason = "it parks records, but what fails is not appended: leave OnError es.Stop"
		case slices.ContainsFunc(x.tasks, func(o *task[Tx]) bool { return o.key == t.key }):
			reason = "it is given twice"
		}
		if reason != "" {
			return nil, fmt.Errorf("es: %w: inline projection %s: %s", es.ErrInvalid, t.key, reason)
		}
		x.tasks = append(x.tasks, t)
	}
	return x, nil
}

// Start brings the projections to the end of the log, before the store is used.
func (x *Inline[Tx]) Start(ctx context.Context) error {
	if err := x.CatchUp(ctx); err != nil {
		return err
	}
	for _, t := range x.tasks {
		if err := t.tellCaughtUp(ctx); err != nil {
			return t.explain(ctx, err)
		}
	}
	return nil
}

// A Statement is one that a backend may send together with others.
type Statement struct {
	SQL  string
	Args []any // of types string, int64 and bool
}

// A State is how a projection stands when an append begins.
type State struct {
	Cursor  projection.Cursor
	Rebuild bool // somebody has asked for it
	Found   bool
}

// States returns a query for each projection, which locks its row and returns one with the fields of a State, Cursor and Rebuild, or none.
func (x *Inline[Tx]) States() []Statement {
	list := make([]Statement, len(x.tasks))
	for i, t := range x.tasks {
		list[i] = Statement{x.engine.say.inline, t.with()}
	}
	return list
}

// Moves returns a statement for each projection, which moves its checkpoint from where it was when the append began to the last that it wrote.
// Each must change one row.
func (x *Inline[Tx]) Moves(states []State, records []es.Record) []Statement {
	list := make([]Statement, len(x.tasks))
	for i, t := range x.tasks {
		list[i] = Statement{x.engine.say.moveInline, t.with(int64(states[i].Cursor), int64(records[len(records)-1].Position), t.lastTime(records), true)}
	}
	return list
}

// lastTime is the time of the last record that the filter lets through, 0 if there is none.
func (t *task[Tx]) lastTime(records []es.Record) int64 {
	for _, r := range slices.Backward(records) {
		if t.filter.Match(r) {
			return r.Time.UnixMicro()
		}
	}
	return 0
}

// Apply gives the records of an append to the projections, in its transaction: those that it wrote behind the position before. What somebody
// else has written since a checkpoint goes before them. Afterwards the backend makes the moves and commits.
//
// It returns [ErrBehind] or a [*RefusedError]; anything else is the database's fault. In each case the transaction is to be rolled back.
func (x *Inline[Tx]) Apply(ctx context.Context, tx Tx, states []State, before es.Position, records []es.Record) error {
	return x.apply(ctx, tx, states, before, records, maxBehind)
}

// ApplyAll is Apply for those who cannot catch up beforehand.
func (x *Inline[Tx]) ApplyAll(ctx context.Context, tx Tx, states []State, before es.Position, records []es.Record) error {
	return x.apply(ctx, tx, states, before, records, int64(before))
}

func (x *Inline[Tx]) apply(ctx context.Context, tx Tx, states []State, before es.Position, records []es.Record, most int64) error {
	for i, t := range x.tasks {
		s := states[i]
		behind := int64(before) - int64(s.Cursor)
		if !s.Found || s.Rebuild || behind > most || behind < 0 {
			return ErrBehind
		}
		if behind > 0 {
			if err := t.missed(ctx, tx, es.Position(s.Cursor), before, x.page); err != nil {
				return err
			}
		}
		if err := t.give(ctx, tx, records); err != nil {
			if ctx.Err() != nil || t.db.Passing(err) {
				return err
			}
			return &RefusedError{t.String(), err}
		}
	}
	return nil
}

// missed applies what others have written.
func (t *task[Tx]) missed(ctx context.Context, tx Tx, after, upTo es.Position, page Pager[Tx]) error {
	for after < upTo {
		records, err := page(ctx, tx, after, upTo, t.batch)
		if err == nil && len(records) == 0 {
			err = fmt.Errorf("es: projection %s: the log ends at %d, and not at %d", t.key, after, upTo)
		}
		if err != nil {
			return err
		}
		after = records[len(records)-1].Position
		if err := t.give(ctx, tx, records); err != nil {
			if ctx.Err() != nil || t.db.Passing(err) {
				return err
			}
			return fmt.Errorf("%w: %w", ErrBehind, err) // which record it is shows when they are tried one by one
		}
	}
	return nil
}

// give calls the handler with those of some records that the filter lets through.
func (t *task[Tx]) give(ctx context.Context, tx Tx, records []es.Record) error {
	if i := slices.IndexFunc(records, func(r es.Record) bool { return !t.filter.Match(r) }); i >= 0 {
		all := records
		records = slices.Clone(all[:i])
		for _, r := range all[i:] {
			if t.filter.Match(r) {
				records = append(records, r)
			}
		}
	}
	for piece := range slices.Chunk(records, t.batch) {
		if err := guard(func() error { return t.handle(ctx, tx, slices.Clip(piece)) }); err != nil {
			return err
		}
	}
	return nil
}

// Moved wakes those who wait for a projection.
func (x *Inline[Tx]) Moved() { x.engine.moved.ring() }

// CatchUp brings the projections to where the end of the log is when it is called, in transactions of their own of a batch each.
// A record that fails makes a [*projection.Error].
func (x *Inline[Tx]) CatchUp(ctx context.Context) error {
	for _, t := range x.tasks {
		err := t.persist(ctx, "join", t.join)
		if err == nil {
			err = t.persist(ctx, "catch up", t.catchUp)
		}
		if err != nil {
			return t.explain(ctx, err)
		}
	}
	return nil
}

func (t *task[Tx]) catchUp(ctx context.Context) error {
	head, err := es.Head(ctx, t.db.Log())
	for limit := t.batch; err == nil; {
		var at es.Position
		if at, err = t.stands(ctx); err != nil {
			break
		}
		if at > head {
			return fmt.Errorf("%w; nothing is appended until Rebuild has let it begin anew", &es.AheadError{After: at, Head: head})
		}
		if at == head {
			return nil
		}
		var took int
		took, err = t.step(ctx, at, head, limit)
		switch failed := (*failure)(nil); {
		case err == nil:
			limit = min(2*limit, t.batch)
		case errors.Is(err, errLost): // somebody else does the same
			err = nil
		case errors.As(err, &failed) && took > 1 && ctx.Err() == nil && !t.db.Passing(err):
			limit, err = took/2, nil
		}
	}
	return err
}

// stands returns where the only shard of the projection stands.
func (t *task[Tx]) stands(ctx context.Context) (es.Position, error) {
	seen, err := t.look(ctx, t.key)
	switch {
	case err != nil:
		return 0, err
	case len(seen.shards) != 1 || seen.shards[0].shard != inlineShard:
		return 0, fmt.Errorf("%w: it is divided into %d shards: run it with Project and one partition until they are one, then inline", es.ErrInvalid, len(seen.shards))
	}
	parked, err := t.streams(ctx, t.say.waiting, t.with(inlineShard)...)
	if err == nil && len(parked) > 0 {
		err = fmt.Errorf("%w: records of %d streams are parked, %s among them: retry or drop them while Project runs it, then run it inline", es.ErrInvalid, len(parked), parked[0])
	}
	return es.Position(seen.shards[0].cursor), err
}

// inlineShard is the only one.
var inlineShard = part.Part{I: 0, Of: 1}.String()

// step applies at most so many records between two positions, in a transaction of its own, and returns how many it took.
func (t *task[Tx]) step(ctx context.Context, after, head es.Position, most int) (int, error) {
	var records []es.Record
	to, bytes := head, 0
	for r, err := range t.db.Log().All(ctx, after, t.filter) {
		if err != nil {
			return 0, err
		}
		if r.Position > head {
			break
		}
		records = append(records, r)
		if bytes += len(r.Data); len(records) == most || bytes >= stepBytes {
			to = r.Position
			break
		}
	}
	err := t.db.Transact(ctx, Options{Idle: t.lease}, func(ctx context.Context, tx Tx) error {
		n, err := t.db.Exec(ctx, tx, t.say.moveInline, t.with(int64(after), int64(to), t.lastTime(records), to == head)...)
		if err == nil && n != 1 {
			err = errLost
		}
		if err == nil && len(records) > 0 {
			if err = guard(func() error { return t.handle(ctx, tx, slices.Clip(records)) }); err != nil {
				err = &failure{err}
			}
		}
		return err
	})
	if failed := (*failure)(nil); errors.As(err, &failed) && len(records) == 1 && ctx.Err() == nil && !t.db.Passing(err) {
		t.tellInline(ctx, failed)
		return 1, &projection.Error{Name: t.name, Version: t.version, Record: records[0], Err: failed.error}
	}
	if err == nil && t.onProgress != nil {
		p := projection.Progress{Shard: inlineShard, Records: len(records), Cursor: projection.Cursor(to), End: projection.Cursor(head)}
		if len(records) > 0 {
			p.Position = records[len(records)-1].Position
		}
		err = t.tellProgress(p)
	}
	return len(records), err
}

const stepBytes = 8 << 20

// tellInline keeps an error in the row, for whoever asks how the projection stands.
func (t *task[Tx]) tellInline(ctx context.Context, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := t.alone(ctx, Options{Quiet: true}, t.say.failInline, t.with(messageOf(err))...); err != nil {
		t.log.Warn("its status does not tell", "error", err)
	}
}
