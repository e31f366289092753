package es

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/thalo-go/es/internal/batch"
	"github.com/thalo-go/es/internal/cause"
)

// Tx collects what the commands of one [Transact] decide. It is valid until the function of Transact returns, in the goroutine of that
// function. Another use is an error that wraps [ErrInvalid].
type Tx struct {
	ctx      context.Context // of Transact
	settings settings        // of Transact

	turn chan struct{} // taken by ExecuteTx, and by Transact while the function does not run; it guards all but broken

	mu     sync.Mutex
	broken error // why nothing can be appended; guarded by mu

	traces []trace // of the commands of this run

	store     Store // of all participants
	parts     []participant
	hasTurn   bool
	conflicts int

	// What one run of the function has decided. One append for each command that is to be recognised or that has events, in order.
	appends  []Append
	records  []Record       // of all appends, with their streams
	commands []command      // the ids of all commands
	calls    map[Stream]int // commands on a stream
	expired  bool           // the time of NotAfter is over

	// Of a command that has taken effect before. Its records have consecutive positions.
	repeated    bool
	first, last Position // of its records, as far as they are known
	reached     Position // the commands of this run have been decided on the log up to here
	rested      bool     // a command of this run had no events, so it rested on first
	again       bool     // and first was wrong
}

// participant is the part of a transaction that is about one subject.
type participant interface {
	// reset begins another run of the function.
	reset()

	// used reports whether a command of this run was decided on the subject.
	used() bool

	// verified reports whether the state was read after the transaction began.
	verified() bool

	// ask returns a question that fails if the state is not the current one.
	ask() Append

	// concerns reports whether a conflict is about the subject.
	concerns(c *ConflictError) bool

	// conflicted makes the next run begin with a later state, or with one that is read anew.
	conflicted(rewound bool)

	// limit returns how often the participant lets the transaction be retried.
	limit() int

	// written keeps the state after an append.
	written(tx *Tx, last Position)

	// failed forgets the cached state.
	failed()

	// takeTurn, endTurn and place are for Tx.takeTurns.
	takeTurn(ctx context.Context, wait bool) bool
	endTurn()
	place() (core uint64, key string)

	// leave counts the commands of the last run. The Repo or Decisions may be closed then.
	leave()
}

// Transact runs a function and appends what its calls of ExecuteTx have decided, everything or nothing, in one call of [Store.Append]. It
// returns the position of the last event, or 0 if there are no events. The commands may be of any Repos and Decisions of one store:
//
//	_, err := es.Transact(ctx, func(tx *es.Tx) error {
//		if _, err := accounts.ExecuteTx(ctx, tx, "ann", account.Withdraw{Amount: 10}); err != nil {
//			return err
//		}
//		_, err := accounts.ExecuteTx(ctx, tx, "bob", account.Deposit{Amount: 10})
//		return err
//	}, es.CommandID(id))
//
// Every state on which a command was decided is still the current one when the events are written. If one is not, the function runs again,
// up to [Config.Retries] times; the smallest of the participants counts. So it may run several times, and must have no other effect. In
// particular it must not call Execute, whose events are written at once. Commands of one Transact on the same stream build on each other.
//
// If the function returns an error, nothing is written, and Transact returns that error as it is. Such a refusal, too, is confirmed: the
// function runs again if a state has changed. It may also handle the refusal of one command and go on with others.
// If it panics, nothing is written. Other errors are those of [Repo.Execute].
//
// Options: [CommandID], [Step], [NotAfter], and [Meta] and [CausedBy] for the events of all commands. [ExpectVersion] belongs to ExecuteTx.
//
// A command id is recorded on every stream that gets events. If the function uses one of these streams again with the same id, nothing is
// written: each ExecuteTx returns its first outcome, with [Result.Repeated] set, and Transact the first position. A Transact that had
// no events is decided again. The n-th command on one stream has an id of its own, with n and a control character at the end.
func Transact(ctx context.Context, f func(tx *Tx) error, options ...ExecuteOption) (_ Position, err error) {
	defer cause.Set(ctx, &err)
	tx := &Tx{ctx: ctx, turn: make(chan struct{}, 1)}
	for _, option := range options {
		option(&tx.settings)
	}
	if tx.settings.hasExpected {
		return 0, invalid("transact: ExpectVersion is about one stream: give it to ExecuteTx")
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	defer func() {
		for _, p := range tx.parts {
			p.leave()
		}
	}()
	for {
		last, again, err := tx.attempt(f)
		if !again {
			return last, err
		}
	}
}

// attempt runs the function once, and appends what it has decided.
func (tx *Tx) attempt(f func(tx *Tx) error) (last Position, again bool, err error) {
	failure := errAborted
	defer func() {
		for _, t := range tx.traces {
			t.end(failure)
		}
		tx.traces = nil
	}()
	last, again, failure, err = tx.settle(tx.run(f))
	return last, again, err
}

// run runs the function once. ExecuteTx can be called during that time only.
func (tx *Tx) run(f func(tx *Tx) error) error {
	for _, p := range tx.parts {
		p.reset()
	}
	tx.appends, tx.records, tx.commands, tx.calls = nil, nil, nil, nil
	tx.expired, tx.rested, tx.again = false, false, false
	tx.reached = max(0, tx.first-1)
	tx.turn <- struct{}{}
	defer func() {
		select {
		case <-tx.turn:
		default:
			_ = tx.breaks(invalid("transact: the function has returned while an ExecuteTx was running: wait for it"))
			<-tx.turn
		}
	}()
	return f(tx)
}

// settle ends a run whose function has returned err. It appends what was decided, or asks whether a refusal still holds. failure is why
// the commands of this run have no effect.
func (tx *Tx) settle(err error) (last Position, again bool, failure, _ error) {
	switch broken := tx.isBroken(); {
	case broken != nil && err == nil:
		return 0, false, broken, broken
	case broken != nil:
		return 0, false, err, err
	case tx.repeated && err != nil:
		return 0, tx.again, err, err
	case tx.repeated:
		return tx.last, tx.again, nil, nil
	}
	appends := tx.appends
	refused := err != nil || tx.expired
	if refused {
		appends = tx.questions()
	}
	if !tx.mustAppend(refused) {
		return 0, false, err, err
	}
	last, failure = tx.send(appends)
	var duplicate *DuplicateError
	var conflict *ConflictError
	switch {
	case failure == nil && tx.expired:
		err = fmt.Errorf("es: transact: %w: it came after %s", ErrExpired, tx.settings.notAfter.Format(time.RFC3339Nano))
		return 0, false, err, err
	case failure == nil:
		if !refused {
			tx.written(last)
		}
		return last, false, err, err
	case errors.As(failure, &duplicate):
		err = tx.repeat(duplicate)
		return 0, err == nil, failure, err
	case errors.As(failure, &conflict):
		again, err = tx.retry(conflict, failure)
		return 0, again, failure, err
	}
	for _, p := range tx.parts {
		p.failed()
	}
	err = fmt.Errorf("es: transact: %w", failure)
	return 0, false, err, err
}

// send hands appends to the store.
func (tx *Tx) send(appends []Append) (Position, error) {
	if len(tx.traces) == 0 {
		return tx.store.Append(tx.ctx, appends...)
	}
	ctx, info := batch.Ask(tx.ctx)
	defer func() {
		for i := range tx.traces {
			tx.traces[i].done.BatchSize, tx.traces[i].done.Waited = max(info.Size(), len(tx.traces)), info.Waited()
		}
	}()
	return tx.store.Append(ctx, appends...)
}

// trace is a command of one run for its Tracer. It ends with the run.
type trace struct {
	tracer Tracer
	ctx    context.Context
	done   CommandTrace
}

// trace begins the trace of a command. It returns the context of the command, and what to call with its outcome.
func (tx *Tx) trace(ctx context.Context, tracer Tracer, stream Stream) (context.Context, func(events int, repeated bool, err error)) {
	ctx = tracer.StartCommand(ctx, stream)
	i := len(tx.traces)
	tx.traces = append(tx.traces, trace{tracer: tracer, ctx: ctx})
	return ctx, func(events int, repeated bool, err error) {
		tx.traces[i].done = CommandTrace{Events: events, Attempts: 1, Repeated: repeated, Err: err}
	}
}

// end ends the trace of a command, whose transaction has failed unless failure is nil.
func (t *trace) end(failure error) {
	if t.done.Err == nil && failure != nil {
		t.done.Err, t.done.Events = failure, 0
	}
	t.tracer.EndCommand(t.ctx, t.done)
}

// mustAppend reports whether the store must be asked. It need not if nothing was decided, or nothing came of a single state that was
// read after the transaction began.
func (tx *Tx) mustAppend(refused bool) bool {
	used, verified := 0, true
	for _, p := range tx.parts {
		if p.used() {
			used++
			verified = verified && p.verified()
		}
	}
	switch {
	case used == 0:
		return false
	case len(tx.records) > 0 && !refused || len(tx.commands) > 0:
		return true
	}
	return used > 1 || !verified
}

// questions returns appends without events that fail if a state has changed, or the store has a command.
func (tx *Tx) questions() []Append {
	var questions []Append
	for _, p := range tx.parts {
		if p.used() {
			questions = append(questions, p.ask())
		}
	}
	for _, c := range tx.commands {
		questions = append(questions, Append{Stream: c.stream, Expected: AnyVersion, Command: c.id})
	}
	return questions
}

func (tx *Tx) written(last Position) {
	for _, p := range tx.parts {
		if p.used() {
			p.written(tx, last)
		}
	}
}

// repeat makes the next run return the outcomes of the first time.
func (tx *Tx) repeat(d *DuplicateError) error {
	if !tx.sent(command{d.Stream, d.Command}) {
		return fmt.Errorf("es: transact: %w, which was not sent: the store breaks its contract", d)
	}
	tx.repeated, tx.first = true, math.MaxInt64
	return tx.found(tx.ctx, d)
}

func (tx *Tx) sent(c command) bool {
	return slices.Contains(tx.commands, c)
}

// found notes the positions of a command that has taken effect before.
func (tx *Tx) found(ctx context.Context, d *DuplicateError) error {
	for record, err := range tx.store.Read(ctx, d.Stream, d.First-1) {
		if err != nil {
			return fmt.Errorf("es: load %s: %w", d.Stream, err)
		}
		if record.Position < tx.first {
			tx.first = record.Position
			tx.again = tx.rested
		}
		tx.reached = record.Position + Position(d.Last-d.First)
		tx.last = max(tx.last, tx.reached)
		return nil
	}
	return fmt.Errorf("es: transact: %w, but the stream has no such version: the history is damaged; run es verify", d)
}

// retry prepares another run after a conflict.
func (tx *Tx) retry(c *ConflictError, failure error) (again bool, _ error) {
	tx.conflicts++
	rewound := errors.Is(failure, ErrRewound)
	limit, known := math.MaxInt, false
	for _, p := range tx.parts {
		if p.used() {
			limit = min(limit, p.limit())
			known = known || p.concerns(c)
		}
	}
	for _, p := range tx.parts {
		if rewound || !known || p.concerns(c) {
			p.conflicted(rewound)
		}
	}
	if tx.conflicts > limit {
		return false, fmt.Errorf("es: transact: gave up after %d attempts: %w", tx.conflicts, failure)
	}
	for _, p := range tx.parts {
		p.endTurn()
	}
	if err := pause(tx.ctx, tx.conflicts); err != nil {
		return false, fmt.Errorf("es: transact: %w", err)
	}
	tx.takeTurns()
	return true, nil
}

// enter begins a call of ExecuteTx.
func (tx *Tx) enter(stream Stream) error {
	if tx == nil || tx.ctx == nil {
		return invalid("execute on %s: the Tx is not that of a Transact: use the one that its function is given", stream)
	}
	select {
	case <-tx.turn:
		return nil
	default:
		return tx.breaks(invalid("execute on %s: this Transact is busy or over: call one ExecuteTx after the other, within its function", stream))
	}
}

// leave ends a call of ExecuteTx.
func (tx *Tx) leave() { tx.turn <- struct{}{} }

// breaks makes the transaction fail with an error, also if its function ignores it.
func (tx *Tx) breaks(err error) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.broken == nil {
		tx.broken = err
	}
	return err
}

func (tx *Tx) isBroken() error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.broken
}

// admit requires that all participants have one store.
func (tx *Tx) admit(store Store, stream Stream) error {
	if tx.store == nil {
		tx.store = store
	}
	if v := reflect.ValueOf(store); !v.Comparable() || !reflect.ValueOf(tx.store).Comparable() || store != tx.store {
		return invalid("execute on %s: it has another store than the commands before it: a Transact has one", stream)
	}
	return nil
}

// apply sets the options of a command: its own, and those of the transaction.
func (tx *Tx) apply(s *settings, stream Stream) error {
	if s.hasCommandID || s.hasStep || !s.notAfter.IsZero() {
		return invalid("execute on %s: CommandID, Step and NotAfter belong to all commands: give them to Transact", stream)
	}
	meta := s.meta
	if len(tx.settings.meta) > 0 {
		meta = maps.Clone(tx.settings.meta)
		maps.Copy(meta, s.meta)
	}
	expected, hasExpected := s.expected, s.hasExpected
	*s = tx.settings
	s.meta, s.expected, s.hasExpected = meta, expected, hasExpected
	if err := s.resolveStep(tx.ctx, stream); err != nil {
		return err
	}
	if err := s.check(stream); err != nil {
		return err
	}
	if tx.settings.notAfter.IsZero() || !time.Now().After(tx.settings.notAfter) {
		s.notAfter = time.Time{}
	} else if s.hasCommandID { // it may have taken effect before, which is asked at the end
		tx.expired, s.notAfter = true, time.Time{}
	}
	if !s.hasCommandID {
		return nil
	}
	if tx.calls == nil {
		tx.calls = make(map[Stream]int)
	}
	tx.calls[stream]++
	if n := tx.calls[stream]; n > 1 {
		s.commandID += "\x1f" + strconv.Itoa(n)
		if err := s.check(stream); err != nil {
			return err
		}
	}
	tx.commands = append(tx.commands, command{stream, s.commandID})
	return nil
}
