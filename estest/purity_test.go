package estest_test

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
)

// A cart is a state with everything in it that can be shared by mistake.
type cart struct {
	lines  []string
	prices map[string]*price
	last   *price
	tags   [2][]string
	any    any
	self   *cart
	rate   float64
	when   time.Time
	hook   func()
}

type price struct{ cents int }

type added struct {
	name string
	tags []string
}

// loose are rules made of two functions.
type loose struct {
	decide func(s cart, c []string) ([]added, error)
	evolve func(s cart, e added) cart
}

func (l loose) Decide(s cart, c []string) ([]added, error) {
	if l.decide == nil {
		return nil, nil
	}
	return l.decide(s, c)
}

func (l loose) Evolve(s cart, e added) cart { return l.evolve(s, e) }

// An impurity is rules that are not pure, and what is said of them.
type impurity[F any] struct {
	name  string
	rules F
	texts []string
}

// found runs a test that must fail, if only at last, with these texts in what it says first.
func found(t *testing.T, run func(t testing.TB), texts []string) {
	t.Helper()
	r := &recorder.T{TB: t}
	run(r)
	if len(r.Failures) == 0 {
		t.Fatal("it was not found")
	}
	recorder.Fails(t, func(t testing.TB) { t.Errorf("%s", r.Failures[0]) }, texts...)
}

func TestEvolveThatIsNotPureIsFound(t *testing.T) {
	type evolve = func(s cart, e added) cart
	for _, test := range []impurity[evolve]{
		{"a map that is shared", func(s cart, e added) cart {
			if s.prices == nil {
				s.prices = make(map[string]*price)
			}
			s.prices[e.name] = &price{1}
			return s
		}, []string{"Evolve(estest_test.added{name:\"b\"", "changes the state it is given", `prices["b"]`, "maps.Clone"}},
		{"a value behind a map that is shared", func(s cart, e added) cart {
			if s.prices == nil {
				s.prices = map[string]*price{"sum": {}}
			} else {
				s.prices = maps.Clone(s.prices)
				s.prices["sum"].cents++
			}
			return s
		}, []string{"changes the state it is given", `prices["sum"].cents`}},
		{"a pointer that is shared", func(s cart, _ added) cart {
			if s.last == nil {
				s.last = new(price)
			} else {
				s.last.cents++
			}
			return s
		}, []string{"changes the state it is given", "last.cents"}},
		{"a value behind an interface that is shared", func(s cart, _ added) cart {
			if p, ok := s.any.(*price); ok {
				p.cents++
			} else {
				s.any = new(price)
			}
			return s
		}, []string{"changes the state it is given", "any.cents"}},
		{"an element of a slice that is shared", func(s cart, e added) cart {
			if len(s.lines) > 0 {
				s.lines[0] = e.name
			} else {
				s.lines = []string{e.name}
			}
			return s
		}, []string{"changes the state it is given", "lines[0]"}},
		{"an append into the room behind a slice", func(s cart, e added) cart {
			s.lines = append(s.lines, e.name)
			return s
		}, []string{"appends to lines of the state it is given", "slices.Clip"}},
		{"an append into the room behind a slice within", func(s cart, e added) cart {
			s.tags[1] = append(s.tags[1], e.name)
			return s
		}, []string{"appends to tags[1] of the state it is given"}},
		{"an event that is changed", func(s cart, e added) cart {
			for i := range e.tags {
				e.tags[i] += "!"
			}
			return s
		}, []string{"Evolve", "changes the event it is given"}},
		{"a state that depends on chance", func(s cart, _ added) cart {
			s.rate = rand.Float64()
			s.lines = nil
			return s
		}, []string{"something else the second time", "rate"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found(t, func(t testing.TB) {
				estest.For(t, loose{evolve: test.rules}).Given(added{"a", []string{"x"}}, added{"b", nil}).When(nil).ThenNothing()
			}, test.texts)
		})
	}
}

func TestDecideThatIsNotPureIsFound(t *testing.T) {
	type decide = func(s cart, c []string) ([]added, error)
	for _, test := range []impurity[decide]{
		{"events that depend on chance", func(cart, []string) ([]added, error) {
			return []added{{"a", []string{time.Duration(rand.Int64()).String()}}}, nil
		}, []string{"Decide([]string{\"b\", \"a\"}) gives something else the second time"}},
		{"a command that is changed", func(_ cart, c []string) ([]added, error) {
			slices.Sort(c)
			return nil, nil
		}, []string{"Decide", "changes the command it is given"}},
		{"a state that Decide changes", func(s cart, _ []string) ([]added, error) {
			s.lines[0] = "changed"
			return nil, nil
		}, []string{"Decide", "changes the state it is given", "lines[0]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found(t, func(t testing.TB) {
				rules := loose{decide: test.rules, evolve: func(_ cart, e added) cart { return cart{lines: []string{e.name}} }}
				estest.For(t, rules).Given(added{"a", nil}).When([]string{"b", "a"}).ThenState(cart{lines: []string{"a"}})
			}, test.texts)
		})
	}
}

func TestPureRulesAreNotComplainedOf(t *testing.T) {
	calls := 0
	rules := loose{
		decide: func(cart, []string) ([]added, error) {
			calls++
			return []added{{"a", nil}, {"b", []string{"x"}}}, nil
		},
		evolve: func(s cart, e added) cart {
			s.lines = append(slices.Clip(s.lines), e.name)
			s.tags[0] = append(slices.Clip(s.tags[0]), e.tags...)
			s.prices = maps.Clone(s.prices)
			if s.prices == nil {
				s.prices = make(map[string]*price)
			}
			s.prices[e.name] = &price{len(s.lines)}
			s.last = &price{len(s.lines)}
			s.any = map[any]any{e.name: []any{s.last}, 1: s.prices}
			s.self = &cart{lines: s.lines}
			s.self.self = s.self
			s.rate = math.NaN()
			s.when = time.Date(2024, 5, 6, 7, 8, 9, 0, time.Local)
			s.hook = func() {}
			return s
		},
	}
	estest.For(t, rules).Given(added{"c", []string{"y", "z"}}, added{"d", nil}).When([]string{"x"}).Then(added{"a", nil}, added{"b", []string{"x"}})
	if calls != 2 {
		t.Errorf("Decide was called %d times, want 2", calls)
	}
}
