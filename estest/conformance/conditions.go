package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"

	"github.com/thalo-go/es"
)

// conditionClauses test tags, filters by tag, conditions, and transactions.
func conditionClauses() []clause {
	return slices.Concat(tagClauses(), transactClauses(), []clause{
		{"a condition fails if a record after its position matches a filter",
			"Positions are dense and in commit order, so a condition after a head is exact: it fails if and only if a matching record was written since, also where the position is beyond the last match. The error names the condition, and nothing is written.",
			conditionsAreExact},
		{"a condition after the end of the log reports a lost history",
			"The caller has read a record that is not there any more. The error wraps es.ErrRewound beside the *es.ConflictError, or the caller decides again on what it has read before.",
			conditionsBeyondTheEnd},
		{"an append without events asks whether conditions hold",
			"A decision may rest on a stream or on records that it does not write. The question is part of the call: if it fails, no append of the call is written.",
			conditionsAreQuestions},
		{"a repeated command is a duplicate although its condition fails",
			"The events of the first time match the condition of the command. A store that reports a conflict makes the caller decide a second time.",
			duplicateBeforeCondition},
		{"records of a call do not fail its own conditions",
			"Commands that are decided one after the other are written by one call. Each was decided on the events of those before it.",
			conditionsIgnoreTheirCall},
		{"one of 16 writers on one condition wins",
			"Position before commit, a condition checked in another snapshot than the insert, or a token that was read apart from the events: each lets two writers win.",
			func(t *trial) { oneConditionWins(t, 1, 16) }},
		{"one of 64 writers on one condition wins through several stores",
			"A lock in one process does not stop another one. The database must decide.",
			func(t *trial) { oneConditionWins(t, 4, 16) }},
		{"two writers cannot skew a rule over two tags",
			"Each reads both tags and writes one of them. If both succeed, no order of the two explains it, and the rule is broken.",
			noWriteSkew},
		{"conditions on types that share a tag do not conflict",
			"A condition is about records that match, and not about the tag. Otherwise unrelated decisions on one course fail each other.",
			typesDoNotConflict},
		{"a record and a condition that it breaks are not both accepted",
			"Appends that are made at the same time may share a transaction. A store that checks all conditions before it writes misses the records of the same transaction, whichever of the two comes first.",
			pairsExclude},
		{"the verdicts of racing conditions are those of a full scan",
			"Each accepted append is preceded by no match behind its position, and for each conflict there is a match.",
			verdictsAreRight},
	})
}

func tagged(data string, tags ...string) es.Record {
	e := event(data)
	e.Tags = tags
	return e
}

func unless(after es.Position, tags ...string) es.Condition {
	c := es.Condition{After: after}
	for _, tag := range tags {
		c.Match = append(c.Match, es.Filter{Tags: []string{tag}})
	}
	return c
}

// write appends events to a stream under a condition.
func write(stream es.Stream, c es.Condition, events ...es.Record) es.Append {
	for i := range events {
		if len(events[i].Tags) == 0 {
			events[i].Tags = []string{"plain"} // because others of its kind have tags
		}
	}
	return es.Append{Stream: stream, Expected: es.AnyVersion, Unless: c, Events: events}
}

func (t *trial) conflict(what string, err error, a es.Append) {
	var conflict *es.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("%s: %v; want a *es.ConflictError", what, err)
		return
	}
	if want := (es.ConflictError{Stream: a.Stream, Expected: a.Expected, Unless: a.Unless}); !reflect.DeepEqual(*conflict, want) {
		t.Errorf("%s: the conflict is %+v; want %+v", what, *conflict, want)
	}
}

func conditionsAreExact(t *trial) {
	l := t.log()
	first := tagged("1", "a", "b")
	first.Type = "one"
	second := tagged("2", "a", "c")
	second.Type = "two"
	t.append(l, write(stream("x"), es.Condition{}, first), write(stream("y"), es.Condition{}, second), write(stream("y"), es.Condition{}, event("3")))
	for i, test := range []struct {
		after es.Position
		match es.Filter
		fails bool
	}{
		{0, es.Filter{Tags: []string{"a"}}, true},
		{1, es.Filter{Tags: []string{"a"}}, true},
		{2, es.Filter{Tags: []string{"a"}}, false}, // the position of the last match
		{3, es.Filter{Tags: []string{"a"}}, false}, // the end
		{0, es.Filter{Tags: []string{"b"}}, true},
		{1, es.Filter{Tags: []string{"b"}}, false},
		{0, es.Filter{Tags: []string{"A"}}, false},
		{0, es.Filter{Tags: []string{"a", "b"}}, true},
		{0, es.Filter{Tags: []string{"b", "a"}}, true},
		{1, es.Filter{Tags: []string{"b", "a"}}, false},
		{0, es.Filter{Tags: []string{"b", "c"}}, false}, // on two records
		{0, es.Filter{Tags: []string{"a"}, Types: []string{"one", "more"}}, true},
		{1, es.Filter{Tags: []string{"a"}, Types: []string{"one", "more"}}, false},
		{1, es.Filter{Tags: []string{"a"}, Types: []string{"two"}}, true},
		{0, es.Filter{Tags: []string{"a"}, Kinds: []string{"other", "estest"}}, true},
		{0, es.Filter{Tags: []string{"a"}, Kinds: []string{"other"}}, false},
		{0, es.Filter{Tags: []string{"b"}, Kinds: []string{"estest"}, Types: []string{"two"}}, false},
	} {
		// As the last of several filters and as the only one.
		for _, match := range [][]es.Filter{{test.match}, {{Tags: []string{"none"}}, {Tags: []string{"a", "none"}}, test.match}} {
			own := stream(fmt.Sprint("own ", i, len(match)))
			a := write(own, es.Condition{Match: match, After: test.after}, event("written"))
			_, err := l.Append(t.ctx, add(stream("z"), 0), a)
			what := fmt.Sprintf("a condition after %d on %v", test.after, match)
			if test.fails {
				t.conflict(what, err, a)
				t.empty(l, what, own)
			} else if err != nil {
				t.Errorf("%s: %v; want it accepted", what, err)
			}
		}
	}
	stale := write(stream("x"), unless(0, "a"), event("4"))
	stale.Expected = 7
	t.conflict("a condition and a version that both fail", t.refuse(l, stale), stale)
}

func conditionsBeyondTheEnd(t *trial) {
	l := t.log()
	end := t.append(l, write(stream("x"), es.Condition{}, tagged("1", "a")))
	for _, match := range []string{"a", "none"} {
		a := write(stream("own"), unless(end+1, match), event("2"))
		err := t.refuse(l, a)
		t.conflict("a condition after the end of the log", err, a)
		if !errors.Is(err, es.ErrRewound) {
			t.Errorf("a condition after the end of the log: %v; want an error that wraps es.ErrRewound", err)
		}
	}
	t.empty(l, "after a condition beyond the end", stream("own"))
	t.append(l, write(stream("own"), unless(end, "a"), event("2")))
}

func conditionsAreQuestions(t *trial) {
	l := t.log()
	t.append(l, write(stream("course"), es.Condition{}, tagged("1", "a")))
	question := write(stream("nothing"), unless(0, "a"))
	t.conflict("a question alone", t.refuse(l, question), question)
	t.conflict("a question after an append", t.refuse(l, write(stream("own"), es.Condition{}, event("2")), question), question)
	version := es.Append{Stream: stream("course"), Expected: 2}
	t.conflict("a question about the version of another stream", t.refuse(l, write(stream("own"), unless(0, "b"), event("2")), version), version)
	t.empty(l, "after questions that failed", stream("own"), stream("nothing"))
	version.Expected = 1
	question.Unless.After = 1
	t.append(l, question)
	t.append(l, question, version, write(stream("own"), unless(0, "b"), event("2")))
}

func duplicateBeforeCondition(t *trial) {
	l := t.log()
	a := write(stream("x"), unless(0, "a"), tagged("1", "a"))
	a.Command = "c"
	t.append(l, a)
	var duplicate *es.DuplicateError
	if err := t.refuse(l, a); !errors.As(err, &duplicate) || duplicate.Command != "c" || duplicate.First != 1 || duplicate.Last != 1 {
		t.Errorf("a repeated command whose condition fails: %v; want a *es.DuplicateError with versions 1 to 1", err)
	}
	// At the same time as another one whose records break the condition.
	t.race(8, func(i int) {
		if i%2 == 0 {
			t.append(l, write(stream(fmt.Sprint("other ", i)), es.Condition{}, tagged("2", "a")))
			return
		}
		var duplicate *es.DuplicateError // of this goroutine
		if _, err := l.Append(t.ctx, a); !errors.As(err, &duplicate) {
			t.Errorf("a repeated command in a race: %v; want a *es.DuplicateError", err)
		}
	})
}

func conditionsIgnoreTheirCall(t *trial) {
	l := t.log()
	t.append(l,
		write(stream("x"), unless(0, "a", "b"), tagged("1", "a")),
		write(stream("y"), unless(0, "a", "b"), tagged("2", "b")),
		write(stream("x"), unless(0, "a", "b")))
	a := write(stream("x"), unless(1, "a", "b"), tagged("3", "a"))
	t.conflict("a condition on a record of an earlier call", t.refuse(l, a), a)
}

func oneConditionWins(t *trial, stores, each int) {
	all := t.stores(stores)
	head := es.Position(0)
	for round := range 4 {
		errs, positions := make([]error, stores*each), make([]es.Position, stores*each)
		t.race(len(errs), func(i int) {
			a := write(stream(fmt.Sprint(round, " ", i)), unless(head, "seat:1"), tagged(fmt.Sprint(i), "seat:1", fmt.Sprint("guest:", i)))
			if positions[i], errs[i] = all[i%stores].Append(t.ctx, a); errs[i] != nil {
				t.conflict("a writer that lost a race on a condition", errs[i], a)
			}
		})
		winners := 0
		for i, err := range errs {
			if err == nil {
				winners++
				head = positions[i]
			}
		}
		if winners != 1 {
			t.Fatalf("of %d writers on one condition %d succeeded: want 1", len(errs), winners)
		}
	}
}

func noWriteSkew(t *trial) {
	const rounds, pairs = 4, 8
	l, other := t.log(), t.log()
	for round := range rounds {
		var succeeded [pairs][2]bool
		t.race(2*pairs, func(i int) {
			pair, side := i/2, i%2
			left, right := fmt.Sprint("left ", round, pair), fmt.Sprint("right ", round, pair)
			_, err := []es.Log{l, other}[(pair+side)%2].Append(t.ctx, write(stream(fmt.Sprint(round, i)), unless(0, left, right), tagged("off duty", []string{left, right}[side])))
			succeeded[pair][side] = err == nil
		})
		for pair, s := range succeeded {
			if s[0] == s[1] {
				t.Errorf("of two writers that read both tags and wrote one each, in pair %d, both succeeded: %t; want one of them to", pair, s[0])
			}
		}
	}
}

func typesDoNotConflict(t *trial) {
	const writers = 16
	l, other := t.log(), t.log()
	t.race(writers, func(i int) {
		e := tagged(fmt.Sprint(i), "course:1")
		e.Type = fmt.Sprint("type ", i)
		c := es.Condition{Match: []es.Filter{{Tags: e.Tags, Types: []string{e.Type}}, {Tags: e.Tags, Kinds: []string{"no such kind"}}}}
		if _, err := []es.Log{l, other}[i%2].Append(t.ctx, write(stream(fmt.Sprint(i)), c, e)); err != nil {
			t.Errorf("a writer whose condition is about a type of its own: %v", err)
		}
	})
}

func pairsExclude(t *trial) {
	const rounds, pairs = 4, 12
	l := t.log()
	for round := range rounds {
		head, err := es.Head(t.ctx, l)
		if err != nil {
			t.Fatalf("Head: %v", err)
		}
		var positions [pairs][2]es.Position
		t.race(2*pairs, func(i int) {
			pair := i / 2
			tag := fmt.Sprint("tag ", pair)
			if i%2 == pair%2 { // either may come first
				positions[pair][1] = t.append(l, write(stream(fmt.Sprint("record ", round, pair)), es.Condition{}, tagged("x", tag)))
				return
			}
			a := write(stream(fmt.Sprint("condition ", round, pair)), unless(head, tag), event("y"))
			p, err := l.Append(t.ctx, a)
			if positions[pair][0] = p; err != nil {
				t.conflict("a condition in a race with a record", err, a)
			}
		})
		for pair, p := range positions {
			if p[0] > p[1] {
				t.Errorf("pair %d: an append at position %d was accepted unless there is a record after %d that is at position %d", pair, p[0], head, p[1])
			}
		}
	}
}

// attempt is an append under a condition and what became of it.
type attempt struct {
	es.Append
	position es.Position // of the last record; 0 after a conflict
}

func verdictsAreRight(t *trial) {
	const writers, calls = 12, 12
	stores := []es.Log{t.log(), t.log()}
	var mu sync.Mutex
	var attempts []attempt
	t.race(writers, func(w int) {
		random := rand.New(rand.NewPCG(uint64(w), 7))
		l := stores[w%len(stores)]
		for call := range calls {
			head, err := es.Head(t.ctx, l)
			if err != nil {
				t.Fatalf("Head: %v", err)
			}
			a := write(stream(fmt.Sprint("kind ", random.IntN(3))), es.Condition{After: max(0, head-es.Position(random.IntN(4)))}, randomEvent(random))
			for range 1 + random.IntN(3) {
				f := randomFilter(random)
				f.Tags = append(f.Tags, someTags[random.IntN(len(someTags))])
				a.Unless.Match = append(a.Unless.Match, f)
			}
			if call%5 == 0 {
				a.Unless = es.Condition{}
			}
			p, err := l.Append(t.ctx, a)
			if err != nil {
				t.conflict("a random condition", err, a)
			}
			mu.Lock()
			attempts = append(attempts, attempt{a, p})
			mu.Unlock()
		}
	})
	records := t.all(stores[0])
	for _, a := range attempts {
		until := es.Position(len(records))
		if a.position > 0 {
			until = a.position - es.Position(len(a.Events))
		}
		match := slices.ContainsFunc(records[min(a.Unless.After, until):until], func(r es.Record) bool {
			return slices.ContainsFunc(a.Unless.Match, func(f es.Filter) bool { return f.Match(r) })
		})
		switch {
		case match && a.position > 0:
			t.Errorf("an append at position %d was accepted, but a record before it matches its condition %+v", a.position, a.Unless)
		case !match && a.position == 0:
			t.Errorf("an append was refused, but no record matches its condition %+v", a.Unless)
		}
	}
}
