package chaos

import (
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// Evidence is what is left when everything has come to its end.
type Evidence struct {
	History iter.Seq2[Entry, error]
	Log     []es.Record
	Funds   int64   // cents that were paid in at the beginning; all the rest is transfers
	Models  []Model // of the projections

	Store     string // the id of the log
	Relayed   bool   // it was published
	Published []Published
}

// A Model is a read model that was read to its end, with what it must be equal to.
type Model struct {
	Name string
	Rows map[string]string // what it has, by key
	Want map[string]string // the fold of the log

	// Repeated are the keys of which it was told more than once although it must not be.
	Repeated []string
}

// A Violation is a broken promise.
type Violation struct {
	Promise string // which one
	Text    string // what was found
}

// String returns promise and finding.
func (v Violation) String() string { return v.Promise + ": " + v.Text }

// Promises, as violations name them.
const (
	promiseDurable    = "an acknowledged append is there, once, where it was said"
	promiseNothing    = "what was refused is not there"
	promiseOnce       = "a command takes effect once"
	promiseWhole      = "an append is all or none"
	promiseOrigin     = "nothing is there that nobody sent"
	promisePositions  = "positions are dense"
	promiseVersions   = "versions are dense"
	promiseTime       = "time does not run backwards"
	promiseMoney      = "no cent is made or lost"
	promiseModel      = "a read model equals the fold of the log"
	promiseExactly    = "a record is applied once"
	promiseProcess    = "processes go on"
	promiseRefusal    = "no account is overdrawn"
	promiseUnbothered = "no process sees what must not be"
)

// Counts are what Check has counted, for the summary.
type Counts struct {
	Records, Streams                       int
	Sent, Acknowledged, Refused, Conflicts int
	Failed, Unknown, Unsaid                int
	Retried, Published                     int
}

// A checker holds the evidence together. It notes each violation; of each promise the first hundred.
type checker struct {
	Counts
	violations []Violation
	noted      map[string]int
	commands   map[string]fate
	balances   map[es.Stream]int64
}

// A fate is what became of a command, on each stream that it is about.
type fate map[es.Stream]*effect

// An effect is what a command did to a stream, as its senders were told and as the log has it.
type effect struct {
	sent  bool
	want  []string // the events, as they were sent
	acks  []ack
	open  int // sent, and nothing said about it
	maybe int // unknown

	events      []string // as they are in the log; none if there are none
	first, last es.Version
	begin, end  es.Position
}

// An ack is what a process was told.
type ack struct {
	process     string
	first, last es.Version
	position    es.Position // of the last record; 0 if that was not said
}

const mostNoted = 100

func (c *checker) found(promise, format string, args ...any) {
	c.noted[promise]++
	if c.noted[promise] <= mostNoted {
		c.violations = append(c.violations, Violation{promise, fmt.Sprintf(format, args...)})
	}
}

// Check returns what the evidence has against the promises. The error says that the evidence itself cannot be read.
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
	}
	c.Published = len(e.Published)
	if e.Relayed {
		c.topics(e.Store, e.Log, e.Published)
	}
	slices.SortFunc(c.violations, func(a, b Violation) int {
		return slices.Compare([]string{a.Promise, a.Text}, []string{b.Promise, b.Text})
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
		c.found(promiseUnbothered, "%s: %s", e.Process, e.Text)
	case Died:
		c.found(promiseProcess, "%s: %s", e.Process, e.Text)
	}
	for i, p := range e.Parts {
		f := c.effect(e.Command, p.Stream)
		switch e.Kind {
		case Sent:
			if f.sent && !slices.Equal(f.want, p.Events) {
				c.found(promiseUnbothered, "%s: %s on %s was sent with other events: the workload is wrong", e.Process, e.Command, p.Stream)
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

// log checks the log by itself, and finds in it what commands have left.
func (c *checker) log(log []es.Record) error {
	heads := make(map[es.Stream]es.Version)
	var last es.Record
	for i, r := range log {
		c.Records++
		if want := es.Position(i + 1); r.Position != want {
			c.found(promisePositions, "%s is at position %d, where %d should be", r.ID(), r.Position, want)
		}
		if want := heads[r.Stream] + 1; r.Version != want {
			c.found(promiseVersions, "%s at position %d: its version should be %d", r.ID(), r.Position, want)
		}
		heads[r.Stream] = max(heads[r.Stream], r.Version)
		if r.Time.Before(last.Time) {
			c.found(promiseTime, "%s at position %d is of %v, and %s before it of %v", r.ID(), r.Position, r.Time, last.ID(), last.Time)
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
		c.found(promiseOrigin, "%s at position %d, of command %q", r.ID(), r.Position, r.Meta[es.MetaCorrelation])
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
		c.found(promiseRefusal, "%s has %d cents after %s at position %d", r.Stream, c.balances[r.Stream], r.ID(), r.Position)
	}
	return nil
}

// amount is by how much a record changes the balance of its account.
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

// command holds what is in the log of a command against what was said of it.
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
			c.found(promiseOnce, "%s on %s: sent %q, and there is %q, as versions %d to %d", id, stream, e.want, e.events, e.first, e.last)
		case int(e.last-e.first)+1 != len(e.events) || int(e.end-e.begin)+1 != len(e.events):
			c.found(promiseWhole, "%s on %s: its %d events are versions %d to %d at positions %d to %d", id, stream, len(e.events), e.first, e.last, e.begin, e.end)
		case e.sent && e.acks == nil && e.open <= 0 && e.maybe == 0:
			c.found(promiseNothing, "%s on %s is there, as version %d at position %d, and everybody was told that it is not", id, stream, e.first, e.begin)
		}
	}
	if isAtomic(id) && landed > 0 && (landed != len(f) || int(end-begin)+1 != events) {
		c.found(promiseWhole, "%s, one append, has %d events on %d of %d streams at positions %d to %d", id, events, landed, len(f), begin, end)
	}
}

// acknowledged holds the log against one acknowledgement.
func (c *checker) acknowledged(id string, stream es.Stream, e *effect, a ack) {
	switch {
	case e.events == nil:
		c.found(promiseDurable, "%s on %s, of which %s was told that it is version %d to %d at position %d, is not there", id, stream, a.process, a.first, a.last, a.position)
	case e.first != a.first || e.last != a.last:
		c.found(promiseDurable, "%s on %s: %s was told versions %d to %d, and it is %d to %d", id, stream, a.process, a.first, a.last, e.first, e.last)
	case a.position != 0 && e.end != a.position:
		c.found(promiseDurable, "%s on %s: %s was told position %d, and it is at %d", id, stream, a.process, a.position, e.end)
	}
}

// money checks that transfers took what they brought, and that all that was paid in is there.
func (c *checker) money(e Evidence) {
	var total int64
	for _, balance := range c.balances {
		total += balance
	}
	if total != e.Funds {
		c.found(promiseMoney, "%d cents were paid in, and %d are there", e.Funds, total)
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
			c.found(promiseMoney, "transfer %s brought %d cents more than it took", id, rest)
		}
	}
}

func (c *checker) model(m Model) {
	for _, key := range m.Repeated {
		c.found(promiseExactly, "%s: %s came again", m.Name, key)
	}
	for key, want := range m.Want {
		if got, there := m.Rows[key]; !there {
			c.found(promiseModel, "%s: %s is not there, and should be %s", m.Name, key, want)
		} else if got != want {
			c.found(promiseModel, "%s: %s is %s, and should be %s", m.Name, key, got, want)
		}
	}
	for key, got := range m.Rows {
		if _, there := m.Want[key]; !there {
			c.found(promiseModel, "%s: %s is %s, and should not be there", m.Name, key, got)
		}
	}
}
