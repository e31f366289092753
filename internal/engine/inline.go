package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/guard"
	"github.com/thalo-go/es/internal/progress"
	"github.com/thalo-go/es/projection"
)

// Inline runs projections inside appends.
//
// Each uses shard 0/1 and needs no lease: the append lock guarantees that its checkpoint is the end of the log. Records appended by
// processes without the projection are applied first. The checkpoint moves by compare-and-set, as everywhere. A process that runs the
// same projection with Project causes retries, but no record is applied twice.
type Inline[Tx any] struct {
	engine *Engine[Tx]
	tasks  []*task[Tx]
	page   Pager[Tx]
	names  []string // of the projections
	either string   // one of them, for errors
}

// Pager reads the log within a transaction: at least one and at most limit records after a position up to another, in order.
type Pager[Tx any] func(ctx context.Context, tx Tx, after, upTo es.Position, limit int) ([]es.Record, error)

// maxBehind is the number of positions that an append may catch up. It is the size of the largest append, because a process that does not
// run the projection may append as often as one that does. Anything more is caught up before the append, in batches.
const maxBehind = es.MaxEvents

// ErrBehind indicates that an inline projection must catch up before the append can be written. Call Inline.CatchUp without holding
// the append lock.
var ErrBehind = errors.New("an inline projection must catch up first")

// RefusedError is the error that the handler of an inline projection returned for an append.
type RefusedError struct {
	Projection string
	Err        error
}

func (r *RefusedError) Error() string {
	return fmt.Sprintf("projection %s refused the append: %v", r.Projection, r.Err)
}

// Refuses tells a refusal from the errors that it wraps, for package commit.
func (r *RefusedError) Refuses() {}

// Unwrap returns the error of Handle.
func (r *RefusedError) Unwrap() error { return r.Err }

// Handler returns the handler of one append, which may be that of any of the projections.
func (x *Inline[Tx]) Handler() *Handler {
	return &Handler{Projection: x.either, Inline: true, names: x.names, overdue: &x.engine.overdue}
}

// Refuse returns the refusal by a failed commit, such as a deferred constraint.
func (x *Inline[Tx]) Refuse(err error) *RefusedError {
	return &RefusedError{x.either, err}
}

// Idle is how long a transaction may be idle before the database aborts it, if it can. The transaction blocks all appends.
func (x *Inline[Tx]) Idle() time.Duration {
	idle := x.tasks[0].lease
	for _, t := range x.tasks {
		idle = min(idle, t.lease)
	}
	return idle
}

// Inline prepares to run projections inside appends.
func (e *Engine[Tx]) Inline(projections []projection.Projection[Tx], page Pager[Tx]) (*Inline[Tx], error) {
	x := &Inline[Tx]{engine: e, page: page}
	for i := range projections {
		p := &projections[i]
		t, err := e.task(*p)
		if err != nil {
			return nil, err
		}
		t.kind = projection.KindInline
		reason := ""
		switch {
		case p.Source != nil:
			reason = "it has a Source, but is given what is appended: leave Source nil"
		case t.partitions != 1:
			reason = "it has several partitions, but runs in one transaction with all that is appended: leave Partitions 0"
		case p.Once:
			reason = "it has Once, but runs as long as the store is open: leave it out"
		case p.OnError != es.Stop:
			reason = "it parks records, but what fails is not appended: leave OnError es.Stop"
		case slices.ContainsFunc(x.tasks, func(o *task[Tx]) bool { return o.key == t.key }):
			reason = "it is given twice"
		}
		if reason != "" {
			return nil, fmt.Errorf("es: %w: inline projection %s: %s", es.ErrInvalid, t.key, reason)
		}
		x.tasks, x.names = append(x.tasks, t), append(x.names, t.key.Name)
		x.either = strings.TrimPrefix(x.either+" or "+t.key.String(), " or ")
		e.inline = append(e.inline, t.key)
	}
	return x, nil
}

// Start brings the projections to the end of the log, before the store is used.
func (x *Inline[Tx]) Start(ctx context.Context) error {
	if err := x.CatchUp(ctx); err != nil {
		return err
	}
	for _, t := range x.tasks {
		if err := t.callOnCaughtUp(ctx); err != nil {
			return t.explain(ctx, err)
		}
	}
	return nil
}

// State is the state of a projection when an append begins.
type State struct {
	Cursor  projection.Cursor
	Rebuild bool  // whether a rebuild is requested
	Filter  int64 // as in Shard, like PastEnd
	PastEnd projection.Cursor
	Found   bool
}

// lastTime returns the time of the last record that the filter lets through, 0 if there is none.
func (t *task[Tx]) lastTime(records []es.Record) int64 {
	for _, r := range slices.Backward(records) {
		if t.filter.Match(r) {
			return r.Time.UnixMicro()
		}
	}
	return 0
}

// Apply gives the records of an append to the projections, in its transaction. They were written after the position before.
// Records that other processes appended since a checkpoint are applied first. Afterwards the backend moves the checkpoints and commits.
//
// by is the handler of the append, as others see it.
//
// It returns [ErrBehind] or a [*RefusedError]; any other error is a fault of the database. After any error the transaction must be
// rolled back.
func (x *Inline[Tx]) Apply(ctx context.Context, tx Tx, states []State, before es.Position, records []es.Record, by *Handler) error {
	return x.apply(ctx, tx, states, before, records, maxBehind, by)
}

// ApplyAll is Apply for callers that cannot call CatchUp.
func (x *Inline[Tx]) ApplyAll(ctx context.Context, tx Tx, states []State, before es.Position, records []es.Record, by *Handler) error {
	return x.apply(ctx, tx, states, before, records, int64(before), by)
}

func (x *Inline[Tx]) apply(ctx context.Context, tx Tx, states []State, before es.Position, records []es.Record, limit int64, by *Handler) error {
	defer x.engine.overdue.remove(by)
	for i, t := range x.tasks {
		s := states[i]
		behind := int64(before) - int64(s.Cursor)
		if !s.Found || s.Rebuild || s.Filter != 0 && s.Filter != t.mark || s.PastEnd > 0 || behind > limit || behind < 0 {
			return ErrBehind
		}
		if behind > 0 {
			if err := t.missed(ctx, tx, es.Position(s.Cursor), before, x.page, by); err != nil {
				return err
			}
		}
		if err := t.give(ctx, tx, records, by); err != nil {
			if errors.Is(err, ErrCallsStore) || ctx.Err() == nil && !t.engine.ledger.Passing(err) {
				return &RefusedError{t.key.String(), err}
			}
			return err
		}
	}
	return nil
}

// missed applies the records that other processes have appended.
func (t *task[Tx]) missed(ctx context.Context, tx Tx, after, upTo es.Position, page Pager[Tx], by *Handler) error {
	for after < upTo {
		records, err := page(ctx, tx, after, upTo, t.batch)
		if err == nil && len(records) == 0 {
			err = fmt.Errorf("es: projection %s: the log ends at %d, and not at %d", t.key, after, upTo)
		}
		if err != nil {
			return err
		}
		after = records[len(records)-1].Position
		if err := t.give(ctx, tx, records, by); err != nil {
			switch {
			case errors.Is(err, ErrCallsStore):
				return &RefusedError{t.key.String(), err}
			case ctx.Err() != nil || t.engine.ledger.Passing(err):
				return err
			}
			return fmt.Errorf("%w: %w", ErrBehind, err) // CatchUp finds the record
		}
	}
	return nil
}

// give calls the handler with the records that the filter lets through.
func (t *task[Tx]) give(ctx context.Context, tx Tx, records []es.Record, by *Handler) error {
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
		if err := guard.Call(func() error { return t.handle(ctx, tx, slices.Clip(piece)) }); err != nil {
			return by.verdict(err)
		}
	}
	return nil
}

// Moved wakes the callers of WaitFor.
func (x *Inline[Tx]) Moved() { x.engine.moved.notify() }

// CatchUp applies everything up to the end of the log at the time of the call, in transactions of one batch each.
// If a record fails, the error is a [*projection.Error].
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
	head, err := es.Head(ctx, t.engine.ledger.Log())
	for limit := t.batch; err == nil; {
		var s Shard
		if s, err = t.position(ctx); err != nil {
			break
		}
		at := es.Position(s.Cursor)
		if at > head { // appends may have moved both since the head was read
			if head, err = es.Head(ctx, t.engine.ledger.Log()); err != nil {
				break
			}
		}
		if at > head {
			return fmt.Errorf("%w; appends fail until Rebuild restarts it", &es.AheadError{After: at, Head: head})
		}
		var took int
		switch {
		case s.PastEnd > 0:
			took, err = t.replay(ctx, s, s.Replaced, limit)
		case at == head:
			return nil
		default:
			took, err = t.step(ctx, at, head, limit, t.forward(at))
		}
		switch failed := (*handlerError)(nil); {
		case err == nil:
			limit = min(2*limit, t.batch)
		case errors.Is(err, errLost): // another process does the same
			err = nil
		case errors.As(err, &failed) && took > 1 && ctx.Err() == nil && !t.engine.ledger.Passing(err):
			limit, err = took/2, nil
		}
	}
	return err
}

// position returns the only shard.
func (t *task[Tx]) position(ctx context.Context) (Shard, error) {
	seen, err := t.engine.ledger.Overview(ctx, t.key)
	switch {
	case err != nil:
		return Shard{}, err
	case len(seen.Shards) != 1 || seen.Shards[0].Name != inlineShard:
		return Shard{}, fmt.Errorf("%w: it has %d shards: run it with Project and one partition first", es.ErrInvalid, len(seen.Shards))
	}
	parked, err := t.engine.ledger.Blocked(ctx, t.key, inlineShard)
	if err == nil && len(parked) > 0 {
		err = fmt.Errorf("%w: records of %d streams are parked, such as %s: retry or drop them while Project runs it", es.ErrInvalid, len(parked), parked[0])
	}
	seen.Shards[0].Replaced = seen.Replaced
	return seen.Shards[0], cmp.Or(err, t.refuseFilter(seen.Filter))
}

// step applies at most limit records between two positions, in its own transaction, and returns their number.
func (t *task[Tx]) step(ctx context.Context, after, head es.Position, limit int, how stepping[Tx]) (int, error) {
	var records []es.Record
	to, bytes, began := head, 0, time.Now()
	for r, err := range t.engine.ledger.Log().All(progress.Want(ctx), after, t.filter) {
		if err != nil {
			return 0, err
		}
		if r.Position > head {
			break
		}
		if progress.IsMark(&r) {
			if time.Since(began) < stepTime {
				continue
			}
			to = r.Position // so that a run that is interrupted need not begin again
			break
		}
		if !how.wanted(r) {
			continue
		}
		records = append(records, r)
		if bytes += len(r.Data); len(records) == limit || bytes >= stepBytes {
			to = r.Position
			break
		}
	}
	err := t.transact(ctx, Options{Idle: t.lease, Handler: t.handler(t.waiting)}, func(ctx context.Context, tx Tx) error {
		moved, err := how.move(ctx, tx, Target{projection.Cursor(to), t.lastTime(records), to == head})
		if err == nil && !moved {
			err = errLost
		}
		if err == nil && len(records) > 0 {
			if err = guard.Call(func() error { return t.handle(ctx, tx, slices.Clip(records)) }); err != nil {
				err = &handlerError{err}
			}
		}
		return err
	})
	if failed := (*handlerError)(nil); errors.As(err, &failed) && len(records) == 1 && ctx.Err() == nil && !t.engine.ledger.Passing(err) {
		t.recordInlineError(ctx, failed)
		return 1, &projection.Error{Name: t.key.Name, Version: t.key.Version, Record: records[0], Err: failed.error}
	}
	if err == nil && t.onProgress != nil {
		p := projection.Progress{Shard: inlineShard, Records: len(records), Cursor: projection.Cursor(to), End: projection.Cursor(head)}
		if len(records) > 0 {
			p.Position = records[len(records)-1].Position
		}
		err = t.callOnProgress(p)
	}
	return len(records), err
}

// Limits of a step.
const (
	stepBytes = 8 << 20
	stepTime  = time.Second // of reading, while the filter excludes nearly every record
)

// recordInlineError stores an error in the row, for Status.
func (t *task[Tx]) recordInlineError(ctx context.Context, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := t.engine.ledger.Fail(ctx, t.key, Shard{Name: inlineShard}, errorText(err)); err != nil {
		t.log.Warn("cannot record the error", "err", err)
	}
}
