package conformance

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// stepClauses test where reactions begin, and the identities of their commands.
func stepClauses() []clause {
	return []clause{
		{"new reaction says where it begins",
			"It has effects in the world. One that begins at the beginning unasked sends ten years of mails.",
			reactionBegins},
		{"commands of reactions and steps are kept apart",
			"Otherwise the second of two commands is taken for a repetition of the first, dropped, and answered with success.",
			stepsApart},
		{"command of a reaction takes effect once",
			"A record comes again after a crash, and after Rename. Its commands must be known by then.",
			stepsOnce},
		{"Replay repeats the commands of a reaction",
			"It asks expressly for the effects again. Under the same identity, each command would be taken for a repetition.",
			stepsAgain},
		{"command of a reaction carries metadata",
			"Cause and correlation make the chain of a process visible. A program's own keys go along if the reaction carries them.",
			stepsCarry},
	}
}

// marks is the state of an aggregate that counts its commands by their names. A command is its name.
type marks map[string]int

type markRules struct{}

func (markRules) Decide(_ marks, name string) ([]string, error) { return []string{name}, nil }

func (markRules) Evolve(m marks, name string) marks {
	next := marks{name: 1}
	for k, n := range m {
		next[k] += n
	}
	return next
}

type markRepo = es.Repo[marks, string, string]

const kindMarks = "marks"

func newMarks(l es.Log) *markRepo {
	return es.NewRepo(l, kindMarks, markRules{}, es.CodecFunc(
		func(name string) (es.Record, error) { return es.Record{Type: name}, nil },
		func(r es.Record) (string, error) { return r.Type, nil }))
}

// marked returns the state of the aggregate of marks.
func (t *trial) marked(r *markRepo) map[string]int {
	at, err := r.Load(t.ctx, "all")
	if err != nil {
		t.Fatalf("Load returned %v", err)
	}
	return at.State
}

// marking returns a reaction to what t.appendSome appends that executes a command for each of some steps, all on one aggregate.
func (t *trial) marking(name string, repo *markRepo, steps ...string) projection.Reaction {
	return projection.Reaction{Name: name, From: projection.Beginning(), Filter: es.Filter{Kinds: []string{stream("").Kind}}, Retries: -1,
		Handle: func(ctx context.Context, _ es.Record) error {
			for _, step := range steps {
				if _, err := repo.Execute(ctx, "all", name+" "+step, es.Step(step)); err != nil {
					return err
				}
			}
			return nil
		}}
}

func reactionBegins(t *trial) {
	s, j := t.side(), new(journal)
	empty := t.reaction("on an empty log", j, nil)
	empty.From = projection.Start{}
	r := t.react(s, empty)
	t.until("it has joined", func() bool { return len(t.status(s, empty.Name)) > 0 })
	last := t.appendSome(s, 10)
	t.reach(s, empty.Name, last)
	t.cancel(r)
	t.handledInOrder(j, s)

	unsaid := empty
	unsaid.Name = "unsaid"
	err := t.brief(s, unsaid.Name, 0, last, func(ctx context.Context) error { return s.React(ctx, unsaid) })
	t.refused("React on a log with records, without From", err, unsaid.Name, "From", "Head")
	unsaid.From = projection.After(last + 1)
	t.refused("React from beyond the end", t.brief(s, unsaid.Name, 0, last, func(ctx context.Context) error { return s.React(ctx, unsaid) }), unsaid.Name)
	if got := t.status(s, unsaid.Name); len(got) > 0 {
		t.Errorf("a reaction that was refused left the checkpoint %+v", got)
	}
	for i, test := range []struct {
		from  projection.Start
		after es.Position
	}{{projection.Beginning(), 0}, {projection.Head(), math.MaxInt64}, {projection.After(4), 4}, {projection.Since(t.all(s)[0].Time), 0}} {
		j := new(journal)
		x := t.reaction(fmt.Sprint("begins ", i), j, nil)
		x.From, x.Partitions = test.from, 2
		r := t.react(s, x)
		t.until("it has joined", func() bool { return len(t.status(s, x.Name)) > 0 })
		before := last
		last = t.appendSome(s, 2)
		t.reach(s, x.Name, last)
		t.cancel(r)
		t.equal("the handled records, by stream", byStream(j.read()), byStream(t.ofType(s, min(test.after, before), last)))
		x.From = projection.Beginning() // it has a checkpoint
		r = t.react(s, x)
		last = t.appendSome(s, 2)
		t.reach(s, x.Name, last)
		t.cancel(r)
		t.equal("the handled records, by stream", byStream(j.read()), byStream(t.ofType(s, min(test.after, before), last)))
	}
}

func stepsApart(t *trial) {
	s := t.side()
	repo := newMarks(s)
	last := t.appendSome(s, 5)
	for _, name := range []string{"points", "mails"} {
		t.react(s, t.marking(name, repo, "first", "second"))
		t.reach(s, name, last)
	}
	t.equal("the commands", t.marked(repo), map[string]int{"points first": 5, "points second": 5, "mails first": 5, "mails second": 5})
}

func stepsOnce(t *trial) {
	s := t.side()
	repo := newMarks(s)
	last := t.appendSome(s, 3)
	var failures atomic.Int32
	for i, name := range []string{"before", "after"} {
		r := t.marking(name, repo)
		r.Handle = func(ctx context.Context, _ es.Record) error {
			if _, err := repo.Execute(ctx, "all", "done", es.Step("only")); err != nil {
				return err
			}
			if failures.Add(1) < 3 {
				return errHandler // as if it had crashed before the checkpoint moved
			}
			return nil
		}
		if i == 0 {
			for range 2 {
				_ = t.wait(t.react(s, r))
			}
			if err := s.Rename(t.ctx, "before", "after"); err != nil {
				t.Fatalf("Rename returned %v", err)
			}
			continue
		}
		t.react(s, r)
		t.reach(s, name, last)
	}
	t.equal("the commands", t.marked(repo), map[string]int{"done": 3})
	again := t.marking("before", repo) // the name is free: this is another reaction
	again.Handle = func(ctx context.Context, _ es.Record) error {
		_, err := repo.Execute(ctx, "all", "done", es.Step("only"))
		return err
	}
	t.react(s, again)
	t.reach(s, "before", last)
	t.equal("the commands with those of another reaction of the name", t.marked(repo), map[string]int{"done": 6})
}

func stepsAgain(t *trial) {
	s := t.side()
	repo := newMarks(s)
	last := t.appendSome(s, 4)
	r := t.marking("again", repo, "only")
	run := t.react(s, r)
	t.reach(s, r.Name, last)
	for i := range 2 {
		if i > 0 {
			t.cancel(run)
		}
		if err := s.Replay(t.ctx, r.Name, 0, projection.After(1)); err != nil {
			t.Fatalf("Replay returned %v", err)
		}
		if i > 0 {
			t.react(s, r)
		}
		t.until("the commands are repeated", func() bool { return t.marked(repo)["again only"] >= 4+3*(i+1) })
	}
	t.equal("the commands", t.marked(repo), map[string]int{"again only": 10})
}

func stepsCarry(t *trial) {
	s := t.side()
	repo := newMarks(s)
	first := t.append(s, es.Append{Stream: stream("a"), Expected: es.AnyVersion, Events: []es.Record{
		{Type: "x", Meta: map[string]string{"user": "ann", "traceparent": "00-1", es.MetaCorrelation: "chain"}}, {Type: "x"}}})
	r := t.marking("carries", repo, "only")
	r.Carry = []string{"user", "tenant"}
	t.react(s, r)
	t.reach(s, r.Name, first)
	var got []map[string]string
	for _, r := range t.read(s, es.Stream{Kind: kindMarks, ID: "all"}) {
		got = append(got, r.Meta)
	}
	causes := recordIDs("a", 1, 2)
	t.equal("the metadata", got, []map[string]string{
		{"user": "ann", es.MetaCorrelation: "chain", es.MetaCausation: causes[0]},
		{es.MetaCorrelation: causes[1], es.MetaCausation: causes[1]},
	})
	if _, err := repo.Execute(t.ctx, "all", "outside", es.Step("only")); err == nil {
		t.Errorf("Execute with Step outside a handler returned %v: want an error", err)
	}
}
