package estest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// Process is a scenario of several aggregates, the reactions between them, and a clock that the test moves. It needs no database and does
// not wait: given events and time, it compares the commands and the events that follow. It is for one goroutine.
//
//	p := estest.NewProcess(t, time.Time{})
//	order := estest.Add(p, "order", Rules{}, Codec)
//	p.React(Expiry(order.Repo))
//	order.Given("1", Placed{})
//	p.Advance(15 * time.Minute)
//	order.ThenCommands("1", Expire{})
//	order.Then("1", Expired{})
type Process struct {
	t         testing.TB
	log       *clockLog
	store     *memory.Store
	reactions []projection.Reaction
	mark      es.Position // of the log at the last When or Advance
	settling  bool        // whether reactions run
	commands  []sent      // by reactions, since the mark
}

// sent is a command of a reaction.
type sent struct {
	stream  es.Stream
	command any
}

// NewProcess begins a scenario at a time, or now if start is zero.
func NewProcess(t testing.TB, start time.Time) *Process {
	t.Helper()
	if start.IsZero() {
		start = time.Now()
	}
	log := &clockLog{Mem: new(es.Mem), now: start.UTC().Truncate(time.Microsecond)}
	return &Process{t: t, log: log, store: memory.New(log.Mem)}
}

// Store returns the log of the scenario, for what is not added by [Add].
func (p *Process) Store() es.Log { return p.log }

// React runs reactions from now on: after each When and Advance, one after the other, until nothing is left to do. Their Source, Once and
// Now belong to the scenario, they have one partition, and they are not retried unless Retries says so.
func (p *Process) React(reactions ...projection.Reaction) {
	p.t.Helper()
	for _, r := range reactions {
		r.Source, r.Once, r.Now, r.Partitions = projection.FromLog(p.log), true, p.log.time, 1
		if r.Retries == 0 {
			r.Retries = -1
		}
		p.reactions = append(p.reactions, r)
	}
	p.settle()
}

// Advance moves the clock. Records that become due until then are handled at their times.
func (p *Process) Advance(d time.Duration) {
	p.t.Helper()
	if d < 0 {
		p.t.Errorf("Advance(%v): a clock does not run backwards", d)
		return
	}
	p.begin()
	end := p.log.time().Add(d)
	p.settle()
	for at, due := p.nextDue(); due && !at.After(end); at, due = p.nextDue() {
		p.log.move(at)
		p.settle()
	}
	p.log.move(end)
}

// begin forgets the commands and events before a When or an Advance.
func (p *Process) begin() {
	p.t.Helper()
	head, err := es.Head(p.t.Context(), p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mark, p.commands = head, nil
}

// settle runs all reactions until none of them has anything to do.
func (p *Process) settle() {
	p.t.Helper()
	p.settling = true
	defer func() { p.settling = false }()
	for before := es.Position(-1); ; {
		head, err := es.Head(p.t.Context(), p.log)
		if err != nil {
			p.t.Fatal(err)
		}
		if head == before {
			return
		}
		before = head
		for _, r := range p.reactions {
			if err := p.store.React(p.t.Context(), r); err != nil {
				p.t.Errorf("reaction %s: %v", r.Name, err)
				return
			}
		}
	}
}

// nextDue returns when the next record is due.
func (p *Process) nextDue() (at time.Time, found bool) {
	p.t.Helper()
	all, err := p.store.Status(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range all {
		if s.Waiting > 0 && (!found || s.NextDue.Before(at)) {
			at, found = s.NextDue, true
		}
	}
	return at, found
}

// Participant is one kind of aggregate in a [Process].
type Participant[S, C, E any] struct {
	// Repo is for reactions.
	Repo *es.Repo[S, C, E]

	p     *Process
	kind  string
	codec *es.Codec[E]
}

// Add adds a kind of aggregate to a process.
func Add[S, C, E any](p *Process, kind string, rules es.Aggregate[S, C, E], codec *es.Codec[E]) *Participant[S, C, E] {
	heard := &listening[S, C, E]{Aggregate: rules, p: p}
	repo := es.NewRepo(&noted{p.log, heard.read}, kind, heard, codec)
	repo.CacheSize = -1 // so that each command reads its stream first
	return &Participant[S, C, E]{Repo: repo, p: p, kind: kind, codec: codec}
}

// Given appends events. Reactions get them with the next When or Advance.
func (a *Participant[S, C, E]) Given(id string, events ...E) {
	a.p.t.Helper()
	records := make([]es.Record, len(events))
	for i, e := range events {
		r, err := a.codec.Encode(e)
		if err != nil {
			a.p.t.Fatal(err)
		}
		records[i] = r
	}
	if _, err := a.p.log.Append(a.p.t.Context(), es.Append{Stream: es.Stream{Kind: a.kind, ID: id}, Expected: es.AnyVersion, Events: records}); err != nil {
		a.p.t.Fatal(err)
	}
	a.p.begin()
}

// When executes a command and then runs the reactions. It returns the error of the command.
func (a *Participant[S, C, E]) When(id string, command C) error {
	a.p.t.Helper()
	a.p.begin()
	_, err := a.Repo.Execute(a.p.t.Context(), id, command)
	a.p.settle()
	return err
}

// Then compares the events of an aggregate since the last When or Advance. None means that there are none.
func (a *Participant[S, C, E]) Then(id string, events ...E) {
	a.p.t.Helper()
	var got []E
	for r, err := range a.p.log.Read(a.p.t.Context(), es.Stream{Kind: a.kind, ID: id}, 0) {
		if err != nil {
			a.p.t.Fatal(err)
		}
		if r.Position <= a.p.mark {
			continue
		}
		e, err := a.codec.Decode(r)
		if err != nil {
			a.p.t.Fatalf("decode %s: %v", r.ID(), err)
		}
		got = append(got, e)
	}
	if diff := difference(events, got); diff != "" && len(events)+len(got) > 0 {
		a.p.t.Errorf("%s/%s has other events (-want +got):\n%s", a.kind, id, diff)
	}
}

// ThenCommands compares the commands that reactions have sent to an aggregate since the last When or Advance, also those that were refused
// or had nothing to do. None means that there are none.
func (a *Participant[S, C, E]) ThenCommands(id string, commands ...C) {
	a.p.t.Helper()
	var got []C
	for _, s := range a.p.commands {
		if c, ok := s.command.(C); ok && s.stream == (es.Stream{Kind: a.kind, ID: id}) {
			got = append(got, c)
		}
	}
	if diff := difference(commands, got); diff != "" && len(commands)+len(got) > 0 {
		a.p.t.Errorf("%s/%s got other commands (-want +got):\n%s", a.kind, id, diff)
	}
}

// listening are rules that note the commands of reactions. A Repo without a cache reads the stream of a command before the rules decide.
type listening[S, C, E any] struct {
	es.Aggregate[S, C, E]
	p      *Process
	mu     sync.Mutex
	stream es.Stream
}

func (l *listening[S, C, E]) read(stream es.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream = stream
}

// Decide implements [es.Aggregate].
func (l *listening[S, C, E]) Decide(state S, command C) ([]E, error) {
	l.mu.Lock()
	if l.p.settling {
		l.p.commands = append(l.p.commands, sent{l.stream, command})
	}
	l.mu.Unlock()
	return l.Aggregate.Decide(state, command)
}

// noted is a log that tells which stream is read.
type noted struct {
	*clockLog
	read func(stream es.Stream)
}

// Read implements [es.Store].
func (n *noted) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	n.read(stream)
	return n.clockLog.Read(ctx, stream, after)
}

// clockLog is a log whose records have the times of a clock that is moved.
type clockLog struct {
	*es.Mem
	mu    sync.Mutex
	now   time.Time
	times []time.Time // by position
}

func (l *clockLog) time() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *clockLog) move(to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = to
}

// Append implements [es.Store].
func (l *clockLog) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, err := l.Mem.Append(ctx, appends...)
	for err == nil && len(l.times) < int(last) {
		l.times = append(l.times, l.now)
	}
	return last, err
}

// Read implements [es.Store].
func (l *clockLog) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return l.timed(l.Mem.Read(ctx, stream, after))
}

// All implements [es.Log].
func (l *clockLog) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return l.timed(l.Mem.All(ctx, after, filter))
}

func (l *clockLog) timed(records iter.Seq2[es.Record, error]) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		for r, err := range records {
			if err == nil {
				l.mu.Lock() // its append has set the time
				if int(r.Position) > len(l.times) {
					err = fmt.Errorf("estest: %w: %s was appended past the scenario: append to Store", es.ErrInvalid, r.ID())
				} else {
					r.Time = l.times[r.Position-1]
				}
				l.mu.Unlock()
			}
			if !yield(r, err) {
				return
			}
		}
	}
}
