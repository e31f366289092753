package es

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thalo-go/es/internal/cause"
)

// part is what one transaction has decided on one subject.
type part[S, C, E any] struct {
	core *core[S, C, E]
	on   subject[S]

	base  state[S] // the one that the store had when it was read
	read  bool     // base is set
	fresh bool     // base was read after the transaction began
	stale bool     // the store has a later one

	turn *turn
	has  bool // the turn is that of this transaction

	// Of one run of the function.
	begun    bool
	at       state[S] // base, and the records of this run
	seen     int      // the records of this run that were looked at
	asked    bool     // an append fails if base is not the current state
	commands int64
	refused  int64
	repeated int64
	began    []time.Duration // when each command began
}

func (p *part[S, C, E]) reset() {
	p.begun, p.asked, p.seen, p.commands, p.refused, p.repeated, p.began = false, false, 0, 0, 0, 0, nil
}

func (p *part[S, C, E]) used() bool     { return p.begun }
func (p *part[S, C, E]) verified() bool { return p.fresh }
func (p *part[S, C, E]) ask() Append    { return p.on.question(p.base) }
func (p *part[S, C, E]) limit() int     { return p.core.retries }
func (p *part[S, C, E]) failed()        { p.core.cache.drop(p.on.key) }

func (p *part[S, C, E]) concerns(c *ConflictError) bool {
	return p.on.stream == c.Stream && (p.on.scope != nil) == (len(c.Unless.Match) > 0)
}

func (p *part[S, C, E]) conflicted(rewound bool) {
	p.core.mu.Lock()
	p.core.stats.Retries++
	p.core.mu.Unlock()
	p.stale = true
	if rewound {
		p.core.cache.purge()
		p.read = false
	} else if cached, found := p.core.cached(&p.on); found && !cached.after(p.base) {
		p.core.cache.drop(p.on.key)
	}
}

// after reports whether a state is later than another one of the same subject.
func (s state[S]) after(other state[S]) bool { return s.Version > other.Version || s.upTo > other.upTo }

func (p *part[S, C, E]) written(tx *Tx, last Position) {
	if slices.ContainsFunc(tx.records[p.seen:], p.on.selects) {
		p.failed() // the state lacks such a record, and what the rules do now must not undo the transaction
		return
	}
	if len(tx.records) == 0 {
		return
	}
	p.at.place(last-Position(len(tx.records)), last)
	p.core.snapshots.consider(p.on.stream, p.base.Version, p.at)
	p.core.cache.put(p.on.key, p.at)
}

func (p *part[S, C, E]) leave() {
	p.core.mu.Lock()
	s := &p.core.stats
	s.Commands, s.Refused, s.Repeated = s.Commands+p.commands, s.Refused+p.refused, s.Repeated+p.repeated
	for _, began := range p.began {
		p.core.took.Add(p.core.clock() - began)
	}
	p.endTurn()
	if p.turn.users--; p.turn.users == 0 {
		delete(p.core.turns, p.on.lane())
	}
	p.core.mu.Unlock()
	p.core.busy.Done()
}

// selects reports whether a record is one of the subject.
func (s *subject[S]) selects(r Record) bool {
	if s.scope != nil {
		return s.scope.match(r)
	}
	return s.stream == r.Stream
}

// part returns the part of a transaction that is about a subject.
func (k *core[S, C, E]) part(tx *Tx, on subject[S]) (*part[S, C, E], error) {
	member := false
	for _, other := range tx.parts {
		p, same := other.(*part[S, C, E])
		if !same || p.core != k {
			continue
		}
		member = true
		if p.on.lane() == on.lane() && (on.scope == nil || on.scope.begins(p.on.scope)) {
			return p, nil
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed && !member { // Close waits for a transaction that it found
		return nil, fmt.Errorf("es: execute on %s: %w", on.stream, k.closedError())
	}
	k.busy.Add(1)
	p := &part[S, C, E]{core: k, on: on, turn: k.join(on.lane())}
	tx.parts = append(tx.parts, p)
	return p, nil
}

// executeTx runs a command as part of a transaction. wrong is an error of its input.
func (k *core[S, C, E]) executeTx(tx *Tx, c *call[S, C, E], wrong error) (_ Result[S, E], err error) {
	defer cause.Set(c.ctx, &err)
	if err := tx.enter(c.on.stream); err != nil {
		return Result[S, E]{}, err
	}
	defer tx.leave()
	returned := false
	var end func(events int, repeated bool, err error)
	var result Result[S, E]
	defer func() {
		if !returned {
			_ = tx.breaks(fmt.Errorf("es: execute on %s: %w", c.on.stream, errAborted))
			err = errAborted
		}
		if end != nil {
			end(len(result.Events), result.Repeated, err)
		}
	}()
	c.began = k.clock()
	if wrong == nil && k.tracer != nil {
		c.ctx, end = tx.trace(c.ctx, k.tracer, c.on.stream)
	}
	result, err = k.takePart(tx, c, wrong)
	if c.panicked != nil {
		panic(c.panicked)
	}
	returned = true
	return result, err
}

func (k *core[S, C, E]) takePart(tx *Tx, c *call[S, C, E], wrong error) (_ Result[S, E], err error) {
	if err = tx.isBroken(); err != nil {
		return Result[S, E]{}, err
	}
	var p *part[S, C, E]
	if err = wrong; err == nil {
		err = c.ctx.Err()
	}
	if err == nil {
		err = tx.apply(&c.settings, c.on.stream)
	}
	if err == nil && k.meta != nil {
		c.meta = merge(k.meta(c.ctx), c.meta)
	}
	if err == nil {
		err = tx.admit(k.store, c.on.stream)
	}
	if err == nil {
		p, err = k.part(tx, c.on)
	}
	if err != nil {
		return Result[S, E]{}, tx.breaks(err)
	}
	if tx.repeated {
		err = p.recall(tx, c)
	} else {
		err = p.begin(tx, c)
	}
	if err != nil {
		return Result[S, E]{}, tx.breaks(err)
	}
	if c.panicked != nil {
		return Result[S, E]{}, nil //nolint:nilerr // executeTx panics with it
	}
	p.commands++
	p.began = append(p.began, c.began)
	switch {
	case c.result.Repeated:
		p.repeated++
	case c.refused:
		p.refused++
	}
	if c.err != nil {
		return Result[S, E]{}, c.err
	}
	c.result.Position, c.result.Time = 0, time.Time{}
	return c.result, nil
}

// begin lets the rules decide on a command.
func (p *part[S, C, E]) begin(tx *Tx, c *call[S, C, E]) (err error) {
	p.core.guard(p.on.stream, c, func() { err = p.catchUp(c.ctx, tx) })
	if err != nil || c.panicked != nil {
		return err
	}
	return p.decide(tx, c)
}

// catchUp sets the state before a command: the one of the store, and what this run has decided.
func (p *part[S, C, E]) catchUp(ctx context.Context, tx *Tx) error {
	if !p.begun {
		if !p.read {
			tx.takeTurn(ctx, p)
		}
		if err := p.load(ctx); err != nil {
			return err
		}
		p.begun, p.at, p.seen = true, p.base, 0
	}
	for ; p.seen < len(tx.records); p.seen++ {
		record := tx.records[p.seen]
		if !p.on.selects(record) {
			continue
		}
		p.at.Version++
		if p.on.scope == nil {
			record.Version = p.at.Version
		}
		if _, _, err := p.core.apply(&p.at, record); err != nil {
			return err
		}
		p.at.Position, p.at.Time, p.at.digest = -Position(p.seen+1), time.Time{}, record.digest()
	}
	p.at.ahead = len(tx.records)
	return nil
}

// load sets the state of the store: a cached one the first time, and after a conflict a later one.
func (p *part[S, C, E]) load(ctx context.Context) (err error) {
	k := p.core
	switch {
	case !p.read:
		var cached bool
		if p.base, cached, err = k.start(ctx, &p.on); err != nil {
			return err
		}
		p.fresh = !cached
		k.mu.Lock()
		if cached {
			k.stats.CacheHits++
		} else {
			k.stats.CacheMisses++
		}
		k.mu.Unlock()
	default:
		if later, found := k.cached(&p.on); found && later.after(p.base) {
			p.base, p.fresh = later, false // another transaction has written it since
			break
		}
		if !p.stale {
			break
		}
		if p.base, err = k.history.refresh(ctx, &p.on, p.base); err != nil {
			return err
		}
		p.fresh = true
		k.cache.put(p.on.key, p.base)
	}
	p.read, p.stale = true, false
	return nil
}

// decide notes what the rules decide on a command.
func (p *part[S, C, E]) decide(tx *Tx, c *call[S, C, E]) error {
	a, next, ok := p.core.decide(&p.on, p.at, c)
	if c.panicked != nil {
		return nil //nolint:nilerr // executeTx panics with it
	}
	if !ok {
		var unexpected *ConflictError
		if c.err != nil && !c.refused && !errors.As(c.err, &unexpected) {
			return c.err
		}
		if p.asked && !c.hasCommandID {
			return nil
		}
		a = p.on.question(p.at)
		a.Command = c.commandID
	}
	if p.asked {
		a.Unless = Condition{} // the first append asks for the others
	}
	for i := range a.Events {
		a.Events[i].Stream = p.on.stream
	}
	tx.appends = append(tx.appends, a)
	tx.records = append(tx.records, a.Events...)
	p.asked, p.at, p.seen = true, next, len(tx.records)
	return nil
}

// recall sets the first outcome of a command of a transaction that has taken effect before. The store has those that had events. The others
// are decided on the state that they found then, so they have the same outcome.
func (p *part[S, C, E]) recall(tx *Tx, c *call[S, C, E]) (err error) {
	k := p.core
	_, err = k.store.Append(c.ctx, Append{Stream: p.on.stream, Expected: AnyVersion, Command: c.commandID})
	var duplicate *DuplicateError
	if errors.As(err, &duplicate) {
		if err = tx.found(c.ctx, duplicate); err == nil {
			k.guard(p.on.stream, c, func() { c.result, err = k.history.firstOutcome(c.ctx, &p.on, duplicate) })
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("es: execute on %s: %w", p.on.stream, err)
	}
	tx.rested = true
	var at state[S]
	k.guard(p.on.stream, c, func() { at, err = k.history.asOf(c.ctx, &p.on, tx.reached) })
	if err != nil || c.panicked != nil {
		return err
	}
	if _, _, decided := k.decide(&p.on, at, c); decided {
		c.result = result[S, E](&p.on, at, nil) // the rules are not those of then; the store knows that there were no events
	}
	c.result.Repeated = c.panicked == nil
	return nil
}

// ExecuteTx is [Repo.Execute] as part of a [Transact]: the events are appended together with those of its other commands.
// The Position and Time of the result are not set.
//
// It returns the error of Decide unchanged, and the function of Transact may handle it. After any other error the transaction fails.
// ctx is for what is read.
func (r *Repo[S, C, E]) ExecuteTx(ctx context.Context, tx *Tx, id string, command C, options ...ExecuteOption) (Result[S, E], error) {
	c := &call[S, C, E]{ctx: ctx, command: command, on: r.subject(id)}
	for _, option := range options {
		option(&c.settings)
	}
	return r.core.executeTx(tx, c, r.start())
}

// ExecuteTx is [Decisions.Execute] as part of a [Transact]: the events are appended together with those of its other commands. A query also
// selects events that earlier commands of the Transact have decided. The Position and Time of the result are not set.
//
// It returns the error of Decide unchanged, and the function of Transact may handle it. After any other error the transaction fails.
// ctx is for what is read.
func (d *Decisions[S, C, E]) ExecuteTx(ctx context.Context, tx *Tx, command C, options ...ExecuteOption) (Result[S, E], error) {
	c := &call[S, C, E]{ctx: ctx, command: command}
	for _, option := range options {
		option(&c.settings)
	}
	var wrong error
	if c.on, wrong = d.subject(command); wrong == nil && c.hasExpected {
		wrong = noVersion(c.on.stream)
	}
	return d.core.executeTx(tx, c, wrong)
}

// asOf returns the state that a subject had at a position of the log.
func (r *Repo[S, C, E]) asOf(ctx context.Context, on *subject[S], upTo Position) (state[S], error) {
	var version Version
	for record, err := range r.core.store.Read(ctx, on.stream, 0) {
		if err != nil {
			return state[S]{}, fmt.Errorf("es: load %s: %w", on.stream, err)
		}
		if record.Position > upTo {
			break
		}
		version = record.Version
	}
	return r.loadAt(ctx, on.stream, version)
}

func (d *Decisions[S, C, E]) asOf(ctx context.Context, on *subject[S], upTo Position) (state[S], error) {
	return d.fold(ctx, on, on.scope.empty(), upTo)
}
