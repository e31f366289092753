package chaos

import (
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// Evidence is what Check examines after a run.
type Evidence struct {
	History iter.Seq2[Entry, error]
	Log     []es.Record
	Funds   int64   // cents deposited at the beginning; everything else is transfers
	Models  []Model // read models of the projections

	Store     string // id of the log
	Relayed   bool   // the log was published
	Published []Published
}

// A Model is the final content of a read model, together with the expected content.
type Model struct {
	Name string
	Rows map[string]string // actual content by key
	Want map[string]string // expected content: the fold of the log

	// Repeated are the keys that were received more than once although that is not allowed.
	Repeated []string
}

// A Violation is a violated guarantee.
type Violation struct {
	Guarantee string // the guarantee
	Text      string // the finding
}

// String returns the guarantee and the finding.
func (v Violation) String() string { return v.Guarantee + ": " + v.Text }

// Guarantees, as violations name them.
const (
	guaranteeDurable    = "an acknowledged append is in the log exactly once, where it was reported"
	guaranteeNothing    = "a refused command writes nothing"
	guaranteeOnce       = "a command takes effect once"
	guaranteeWhole      = "an append is atomic"
	guaranteeOrigin     = "every event was sent by a process"
	guaranteePositions  = "positions are dense"
	guaranteeVersions   = "versions are dense"
	guaranteeTime       = "time does not decrease"
	guaranteeMoney      = "no money is created or lost"
	guaranteeModel      = "a read model equals the fold of the log"
	guaranteeExactly    = "a record is applied once"
	guaranteeProcess    = "processes continue to work"
	guaranteeRefusal    = "no account is overdrawn"
	guaranteeUnbothered = "no process observes a violation"
)

// Counts are totals that Check computed, for the summary.
type Counts struct {
	Records, Streams                       int
	Sent, Acknowledged, Refused, Conflicts int
	Failed, Unknown, Unsaid                int
	Retried, Published, Timers             int // Timers: effects of timers
}

// A checker compares the parts of the evidence. It notes at most 100 violations of each guarantee.
type checker struct {
	Counts
	violations []Violation
	noted      map[string]int
	commands   map[string]fate
	balances   map[es.Stream]int64
}

// A fate is what became of a command on each of its streams.
type fate map[es.Stream]*effect

// An effect is what a command did to a stream, according to its senders and to the log.
type effect struct {
	sent  bool
	want  []string // the events as they were sent
	acks  []ack
	open  int // sent without an answer
	maybe int // number of unknown outcomes

	events      []string // as they are in the log, or none
	first, last es.Version
	begin, end  es.Position
}

// An ack is an acknowledgement that a process received.
type ack struct {
	process     string
	first, last es.Version
	position    es.Position // of the last record; 0 if not reported
}

const mostNoted = 100

func (c *checker) found(promise, format string, args ...any) {
	c.noted[promise]++
	if c.noted[promise] <= mostNoted {
		c.violations = append(c.violations, Violation{promise, fmt.Sprintf(format, args...)})
	}
}

// Check compares the evidence with the guarantees and returns the violations. An error means that the evidence cannot
// be read.
func Check(e Evidence) ([]Violation, Counts, error) {
	c := &checker{noted: make(map[string]int), commands: make(map[string]fate), balances: make(map[es.Stream]int64)}
	for entry, err := range e.History {
		if err != nil {
			return nil, Counts{}, err
		}
		c.entry(entry)
	}
	if err := c.log(e.Log); err != nil {
		return nil, Counts{}, err
	}
	for id, f := range c.commands {
		c.command(id, f)
	}
	c.money(e)
	for _, m := range e.Models {
		c.model(m)
		if m.Name == reactionReminder || m.Name == reactionNudge {
			c.Timers += len(m.Rows)
		}
	}
	c.Published = len(e.Published)
	if e.Relayed {
		c.topics(e.Store, e.Log, e.Published)
	}
	slices.SortFunc(c.violations, func(a, b Violation) int {
		return slices.Compare([]string{a.Guarantee, a.Text}, []string{b.Guarantee, b.Text})
	})
	return c.violations, c.Counts, nil
}

func (c *checker) entry(e Entry) {
	switch e.Kind {
	case Sent:
		c.Sent++
	case Acknowledged:
		c.Acknowledged++
	case Refused:
		c.Refused++
	case Conflicted:
		c.Conflicts++
	case Failed:
		c.Failed++
	case Unknown:
		c.Unknown++
	case Retried:
		c.Retried++
	case Violated:
		c.found(guaranteeUnbothered, "%s: %s", e.Process, e.Text)
	case Died:
		c.found(guaranteeProcess, "%s: %s", e.Process, e.Text)
	}
	for i, p := range e.Parts {
		f := c.effect(e.Command, p.Stream)
		switch e.Kind {
		case Sent:
			if f.sent && !slices.Equal(f.want, p.Events) {
				c.found(guaranteeUnbothered, "%s: %s on %s was sent again with other events: the workload is wrong", e.Process, e.Command, p.Stream)
			}
			f.sent, f.want = true, p.Events
			f.open++
		case Acknowledged:
			f.open--
			a := ack{process: e.Process, first: p.First, last: p.Last}
			if i == len(e.Parts)-1 {
				a.position = e.Position
			}
			f.acks = append(f.acks, a)
		case Unknown:
			f.open--
			f.maybe++
		default:
			f.open--
		}
	}
}

func (c *checker) effect(command string, stream es.Stream) *effect {
	f := c.commands[command]
	if f == nil {
		f = make(fate)
		c.commands[command] = f
	}
	if f[stream] == nil {
		f[stream] = new(effect)
	}
	return f[stream]
}

// log checks the log alone and finds the effects of commands in it.
func (c *checker) log(log []es.Record) error {
	heads := make(map[es.Stream]es.Version)
	var last es.Record
	for i, r := range log {
		c.Records++
		if want := es.Position(i + 1); r.Position != want {
			c.found(guaranteePositions, "%s is at position %d instead of %d", r.ID(), r.Position, want)
		}
		if want := heads[r.Stream] + 1; r.Version != want {
			c.found(guaranteeVersions, "%s at position %d should have version %d", r.ID(), r.Position, want)
		}
		heads[r.Stream] = max(heads[r.Stream], r.Version)
		if r.Time.Before(last.Time) {
			c.found(guaranteeTime, "%s at position %d has time %v, after %s with time %v", r.ID(), r.Position, r.Time, last.ID(), last.Time)
		}
		last = r
		if r.Stream.Kind != kindAccount {
			continue
		}
		if err := c.record(r); err != nil {
			return err
		}
	}
	c.Streams = len(heads)
	return nil
}

func (c *checker) record(r es.Record) error {
	e := c.effect(r.Meta[es.MetaCorrelation], r.Stream)
	if !e.sent {
		c.found(guaranteeOrigin, "%s at position %d, of command %q", r.ID(), r.Position, r.Meta[es.MetaCorrelation])
	}
	if e.events == nil {
		e.first, e.begin = r.Version, r.Position
	}
	e.last, e.end = r.Version, r.Position
	e.events = append(e.events, content(r))
	change, err := amount(r)
	if err != nil {
		return err
	}
	c.balances[r.Stream] += change
	if c.balances[r.Stream] < 0 {
		c.found(guaranteeRefusal, "%s has %d cents after %s at position %d", r.Stream, c.balances[r.Stream], r.ID(), r.Position)
	}
	return nil
}

// amount returns by how much a record changes the balance of its account.
func amount(r es.Record) (int64, error) {
	event, err := account.Codec.Decode(r)
	if err != nil {
		return 0, err
	}
	switch e := event.(type) {
	case account.Deposited:
		return e.Amount, nil
	case account.Withdrawn:
		return -e.Amount, nil
	}
	return 0, nil
}

// command compares the effects of a command in the log with what its senders were told.
func (c *checker) command(id string, f fate) {
	events, landed, begin, end := 0, 0, es.Position(math.MaxInt64), es.Position(0)
	for stream, e := range f {
		c.Unsaid += max(0, e.open)
		for _, a := range e.acks {
			c.acknowledged(id, stream, e, a)
		}
		if e.events == nil {
			continue
		}
		landed++
		events += len(e.events)
		begin, end = min(begin, e.begin), max(end, e.end)
		switch {
		case e.sent && !slices.Equal(e.events, e.want):
			c.found(guaranteeOnce, "%s on %s: sent %q, but the log has %q, as versions %d to %d", id, stream, e.want, e.events, e.first, e.last)
		case int(e.last-e.first)+1 != len(e.events) || int(e.end-e.begin)+1 != len(e.events):
			c.found(guaranteeWhole, "%s on %s: its %d events are versions %d to %d at positions %d to %d", id, stream, len(e.events), e.first, e.last, e.begin, e.end)
		case e.sent && e.acks == nil && e.open <= 0 && e.maybe == 0:
			c.found(guaranteeNothing, "%s on %s is in the log as version %d at position %d, although all senders were told that it was not written", id, stream, e.first, e.begin)
		}
	}
	if isAtomic(id) && landed > 0 && (landed != len(f) || int(end-begin)+1 != events) {
		c.found(guaranteeWhole, "%s, one append, has %d events on %d of %d streams at positions %d to %d", id, events, landed, len(f), begin, end)
	}
}

// acknowledged compares the log with one acknowledgement.
func (c *checker) acknowledged(id string, stream es.Stream, e *effect, a ack) {
	switch {
	case e.events == nil:
		c.found(guaranteeDurable, "%s on %s, acknowledged to %s as versions %d to %d at position %d, is not in the log", id, stream, a.process, a.first, a.last, a.position)
	case e.first != a.first || e.last != a.last:
		c.found(guaranteeDurable, "%s on %s: acknowledged to %s as versions %d to %d, but is %d to %d", id, stream, a.process, a.first, a.last, e.first, e.last)
	case a.position != 0 && e.end != a.position:
		c.found(guaranteeDurable, "%s on %s: acknowledged to %s at position %d, but is at %d", id, stream, a.process, a.position, e.end)
	}
}

// money checks that every transfer withdrew what it deposited, and that the total is unchanged.
func (c *checker) money(e Evidence) {
	var total int64
	for _, balance := range c.balances {
		total += balance
	}
	if total != e.Funds {
		c.found(guaranteeMoney, "%d cents were deposited, but the balances add up to %d", e.Funds, total)
	}
	transfers := make(map[string]int64)
	for _, r := range e.Log {
		if r.Stream.Kind != kindAccount || isFunding(r.Meta[es.MetaCorrelation]) {
			continue
		}
		if change, err := amount(r); err == nil {
			transfers[r.Meta[es.MetaCorrelation]] += change
		}
	}
	for id, rest := range transfers {
		if rest != 0 {
			c.found(guaranteeMoney, "transfer %s deposited %d cents more than it withdrew", id, rest)
		}
	}
}

func (c *checker) model(m Model) {
	for _, key := range m.Repeated {
		c.found(guaranteeExactly, "%s: %s was applied again", m.Name, key)
	}
	for key, want := range m.Want {
		if got, there := m.Rows[key]; !there {
			c.found(guaranteeModel, "%s: %s is missing, want %s", m.Name, key, want)
		} else if got != want {
			c.found(guaranteeModel, "%s: %s is %s, want %s", m.Name, key, got, want)
		}
	}
	for key, got := range m.Rows {
		if _, there := m.Want[key]; !there {
			c.found(guaranteeModel, "%s: %s is %s, want none", m.Name, key, got)
		}
	}
}
