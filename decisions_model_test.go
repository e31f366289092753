package es_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
)

// TestDecisionsModel runs random decisions, commands and transactions through several Decisions and Repos on one faulty log. Each outcome is
// compared with the rules on a full scan of the log as it was.
func TestDecisionsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newSumModel()
		rt.Repeat(map[string]func(*rapid.T){
			"":         m.check,
			"execute":  m.execute,
			"transact": m.transact,
			"load":     m.load,
		})
	})
}

// A spend changes a sum. That of a decision is over the events with a tag, that of a Repo over those of a stream.
type spend struct {
	Of  []string // tags; none for a stream
	ID  string   // of the stream
	By  int
	Tag string // of the event
}

type spent struct {
	By  int
	Tag string
}

type spendRules struct{}

var errOverdrawn = errors.New("overdrawn")

func (spendRules) Decide(n int, c spend) ([]spent, error) {
	switch {
	case n+c.By < 0:
		return nil, errOverdrawn
	case c.By == 0:
		return nil, nil
	case c.By > 3: // two events, one of which the query may not select
		return []spent{{c.By - 1, c.Tag}, {1, "a"}}, nil
	}
	return []spent{{c.By, c.Tag}}, nil
}

func (spendRules) Evolve(n int, e spent) int { return n + e.By }

var spentCodec = es.JSON(map[string]spent{"spent": {}}).Tag(func(e spent) []string { return []string{e.Tag} })

// matches reports whether a command rests on a record.
func (c spend) matches(r es.Record) bool {
	if len(c.Of) == 0 {
		return r.Stream == c.stream()
	}
	return slices.ContainsFunc(c.Of, func(tag string) bool { return slices.Contains(r.Tags, tag) })
}

func (c spend) stream() es.Stream { return es.Stream{Kind: "sum", ID: c.ID} }

type sumModel struct {
	log       *es.Mem
	faults    []fault
	repos     []*es.Repo[int, spend, spent]
	decisions []*es.Decisions[int, spend, spent]
	first     map[string]string // the outcome of a command that took effect
}

func newSumModel() *sumModel {
	m := &sumModel{log: new(es.Mem), first: make(map[string]string)}
	faulty := &faultyLog{Log: m.log, m: m}
	for range 2 {
		m.repos = append(m.repos, es.NewRepo(faulty, "sum", spendRules{}, spentCodec))
		m.decisions = append(m.decisions, es.NewDecisions(faulty, spendRules{}, spentCodec, func(c spend) es.Boundary[int] {
			b := es.Boundary[int]{Stream: c.stream()}
			for _, tag := range c.Of {
				b.Query = append(b.Query, es.Filter{Tags: []string{tag}})
			}
			return b
		}))
	}
	return m
}

// faultyLog is a log with faults.
type faultyLog struct {
	es.Log
	m *sumModel
}

func (s *faultyLog) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	next := sound
	if len(s.m.faults) > 0 {
		next, s.m.faults = s.m.faults[0], s.m.faults[1:]
	}
	if len(appends) == 1 && len(appends[0].Events) == 0 && (next == intrusion || next == lostRace) {
		next = sound // only asks whether the command is there, which is no race
	}
	switch next {
	case intrusion:
		for _, tag := range []string{"a", "b"} {
			event, _ := spentCodec.Encode(spent{1, tag})
			_, _ = s.Log.Append(ctx, es.Append{Stream: appends[0].Stream, Expected: es.AnyVersion, Events: []es.Record{event}})
		}
	case lostRace:
		return 0, &es.ConflictError{Stream: appends[0].Stream, Expected: appends[0].Expected, Unless: appends[0].Unless}
	case broken:
		return 0, errBroken
	case unknown:
		return 0, fmt.Errorf("faulty: %w", es.ErrUnknownOutcome)
	case unwitnessed:
		if _, err := s.Log.Append(ctx, appends...); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("faulty: %w", es.ErrUnknownOutcome)
	}
	return s.Log.Append(ctx, appends...)
}

func (m *sumModel) records() (all []es.Record) {
	for r, err := range m.log.All(context.Background(), 0, es.Filter{}) {
		if err != nil {
			panic(err)
		}
		all = append(all, r)
	}
	return all
}

// sum is a full scan.
func (c spend) sum(records []es.Record) (n int) {
	for _, r := range records {
		if event, err := spentCodec.Decode(r); err == nil && c.matches(r) {
			n += event.By
		}
	}
	return n
}

func (m *sumModel) draw(t *rapid.T) spend {
	c := spend{ID: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "stream"), By: rapid.IntRange(-4, 5).Draw(t, "by"), Tag: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "tag")}
	c.Of = rapid.SampledFrom([][]string{nil, {"a"}, {"b", "a"}, {"c"}}).Draw(t, "of")
	return c
}

func (m *sumModel) run(tx *es.Tx, which int, c spend, options ...es.ExecuteOption) (es.Result[int, spent], error) {
	ctx := context.Background()
	switch {
	case len(c.Of) > 0 && tx != nil:
		return m.decisions[which].ExecuteTx(ctx, tx, c)
	case len(c.Of) > 0:
		return m.decisions[which].Execute(ctx, c, options...)
	case tx != nil:
		return m.repos[which].ExecuteTx(ctx, tx, c.ID, c)
	}
	return m.repos[which].Execute(ctx, c.ID, c, options...)
}

// try runs commands with faults, as one Execute or Transact, until the outcome is known, and compares it.
func (m *sumModel) try(t *rapid.T, commands []spend, id string, run func(options ...es.ExecuteOption) ([]es.Result[int, spent], es.Position, error)) {
	kinds := []fault{sound, sound, intrusion, lostRace, broken, unknown, unwitnessed}
	m.faults = rapid.SliceOfN(rapid.SampledFrom(kinds), 0, 3).Draw(t, "faults")
	var options []es.ExecuteOption
	if id != "" {
		options = append(options, es.CommandID(id))
	}
	results, last, err := run(options...)
	for id != "" && (errors.Is(err, es.ErrUnknownOutcome) || errors.Is(err, errBroken)) {
		m.faults = nil // its events stay the last ones
		results, last, err = run(options...)
	}
	m.faults = nil
	after := m.records()
	if errors.Is(err, es.ErrUnknownOutcome) || errors.Is(err, errBroken) {
		return
	}
	if id != "" && m.first[id] != "" {
		if got := outcomes(results, last, err); got != m.first[id] {
			t.Fatalf("repeated %s: %s; want %s", id, got, m.first[id])
		}
		return
	}
	events := 0 // that were written
	if err == nil {
		for _, r := range results {
			events += len(r.Events)
		}
	}
	log := slices.Clone(after[:len(after)-events]) // as it was before the transaction, and then what each command has added
	for i, c := range commands {
		before := c.sum(log)
		want, refusal := spendRules{}.Decide(before, c)
		if refused := i == len(results); refused != (refusal != nil) || refused && !errors.Is(err, refusal) {
			t.Fatalf("%+v on %d: %v; want %v", c, before, err, refusal)
		}
		if refusal != nil {
			return
		}
		for _, e := range want {
			r, _ := spentCodec.Encode(e)
			r.Stream = c.stream()
			log = append(log, r)
		}
		if diff := cmp.Diff(want, results[i].Events); diff != "" || results[i].State != c.sum(log) {
			t.Fatalf("%+v on %d: %+v; want state %d and events %+v", c, before, results[i], c.sum(log), want)
		}
	}
	if err != nil {
		t.Fatalf("%+v: %v", commands, err)
	}
	if id != "" && events > 0 {
		m.first[id] = outcomes(results, last, nil)
	}
}

// outcomes describes what a command returned, without whether it was a repetition.
func outcomes(results []es.Result[int, spent], last es.Position, err error) string {
	var text strings.Builder
	for _, r := range results {
		fmt.Fprintf(&text, "%d %v, ", r.State, r.Events)
	}
	return fmt.Sprint(text.String(), last, err)
}

func (m *sumModel) execute(t *rapid.T) {
	c, which := m.draw(t), rapid.IntRange(0, 1).Draw(t, "which")
	id := ""
	if rapid.Bool().Draw(t, "identified") {
		id = fmt.Sprintf("%+v", c)
	}
	m.try(t, []spend{c}, id, func(options ...es.ExecuteOption) ([]es.Result[int, spent], es.Position, error) {
		r, err := m.run(nil, which, c, options...)
		if err != nil {
			return nil, 0, err
		}
		return []es.Result[int, spent]{r}, 0, nil
	})
}

func (m *sumModel) transact(t *rapid.T) {
	var commands []spend
	var which []int
	for range rapid.IntRange(1, 4).Draw(t, "commands") {
		commands, which = append(commands, m.draw(t)), append(which, rapid.IntRange(0, 1).Draw(t, "which"))
	}
	id := ""
	if rapid.Bool().Draw(t, "identified") {
		id = fmt.Sprintf("tx %+v", commands)
	}
	m.try(t, commands, id, func(options ...es.ExecuteOption) (results []es.Result[int, spent], last es.Position, err error) {
		last, err = es.Transact(context.Background(), func(tx *es.Tx) error {
			results = nil
			for i, c := range commands {
				r, err := m.run(tx, which[i], c)
				if err != nil {
					return err
				}
				results = append(results, r)
			}
			return nil
		}, options...)
		return results, last, err
	})
}

func (m *sumModel) load(t *rapid.T) {
	c, which := m.draw(t), rapid.IntRange(0, 1).Draw(t, "which")
	var at es.Versioned[int]
	var err error
	if len(c.Of) > 0 {
		at, err = m.decisions[which].Load(context.Background(), c)
	} else {
		at, err = m.repos[which].Load(context.Background(), c.ID)
	}
	if want := c.sum(m.records()); err != nil || at.State != want {
		t.Fatalf("Load of %+v: %+v, %v; want %d", c, at, err, want)
	}
}

func (m *sumModel) check(t *rapid.T) {
	heads := make(map[es.Stream]es.Version)
	for i, r := range m.records() {
		heads[r.Stream]++
		if r.Position != es.Position(i+1) || r.Version != heads[r.Stream] {
			t.Fatalf("record %d is %s at position %d", i+1, r.ID(), r.Position)
		}
	}
}
