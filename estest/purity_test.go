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

// cart is a state with everything that can be shared by mistake.
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

// loose are rules of two functions.
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

// impurity is rules that are not pure, and texts that the failure must contain.
type impurity[F any] struct {
	name  string
	rules F
	texts []string
}

// found runs a test that must fail. The first failure must contain the texts.
func found(t *testing.T, run func(t testing.TB), texts []string) {
	t.Helper()
	r := &recorder.T{TB: t}
	run(r)
	if len(r.Failures) == 0 {
		t.Fatal("the impurity was not found")
	}
	recorder.Fails(t, func(t testing.TB) { t.Errorf("%s", r.Failures[0]) }, texts...)
}

func TestImpureEvolveIsFound(t *testing.T) {
	type evolve = func(s cart, e added) cart
	for _, test := range []impurity[evolve]{
		{"a shared map", func(s cart, e added) cart {
			if s.prices == nil {
				s.prices = make(map[string]*price)
			}
			s.prices[e.name] = &price{1}
			return s
		}, []string{"Evolve(estest_test.added{name:\"b\"", "modifies the state", `prices["b"]`, "maps.Clone"}},
		{"a shared value in a map", func(s cart, e added) cart {
			if s.prices == nil {
				s.prices = map[string]*price{"sum": {}}
			} else {
				s.prices = maps.Clone(s.prices)
				s.prices["sum"].cents++
			}
			return s
		}, []string{"modifies the state", `prices["sum"].cents`}},
		{"a shared pointer", func(s cart, _ added) cart {
			if s.last == nil {
				s.last = new(price)
			} else {
				s.last.cents++
			}
			return s
		}, []string{"modifies the state", "last.cents"}},
		{"a shared value in an interface", func(s cart, _ added) cart {
			if p, ok := s.any.(*price); ok {
				p.cents++
			} else {
				s.any = new(price)
			}
			return s
		}, []string{"modifies the state", "any.cents"}},
		{"a shared element of a slice", func(s cart, e added) cart {
			if len(s.lines) > 0 {
				s.lines[0] = e.name
			} else {
				s.lines = []string{e.name}
			}
			return s
		}, []string{"modifies the state", "lines[0]"}},
		{"an append to the unused capacity of a slice", func(s cart, e added) cart {
			s.lines = append(s.lines, e.name)
			return s
		}, []string{"appends to lines in place", "slices.Clip"}},
		{"an append to the unused capacity of a nested slice", func(s cart, e added) cart {
			s.tags[1] = append(s.tags[1], e.name)
			return s
		}, []string{"appends to tags[1] in place"}},
		{"a modified event", func(s cart, e added) cart {
			for i := range e.tags {
				e.tags[i] += "!"
			}
			return s
		}, []string{"Evolve", "modifies the event"}},
		{"a random state", func(s cart, _ added) cart {
			s.rate = rand.Float64()
			s.lines = nil
			return s
		}, []string{"returns something else the second time", "rate"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found(t, func(t testing.TB) {
				estest.For(t, loose{evolve: test.rules}).Given(added{"a", []string{"x"}}, added{"b", nil}).When(nil).ThenNothing()
			}, test.texts)
		})
	}
}

func TestImpureDecideIsFound(t *testing.T) {
	type decide = func(s cart, c []string) ([]added, error)
	for _, test := range []impurity[decide]{
		{"random events", func(cart, []string) ([]added, error) {
			return []added{{"a", []string{time.Duration(rand.Int64()).String()}}}, nil
		}, []string{"Decide([]string{\"b\", \"a\"}) returns something else the second time"}},
		{"a modified command", func(_ cart, c []string) ([]added, error) {
			slices.Sort(c)
			return nil, nil
		}, []string{"Decide", "modifies the command"}},
		{"a state that Decide modifies", func(s cart, _ []string) ([]added, error) {
			s.lines[0] = "changed"
			return nil, nil
		}, []string{"Decide", "modifies the state", "lines[0]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found(t, func(t testing.TB) {
				rules := loose{decide: test.rules, evolve: func(_ cart, e added) cart { return cart{lines: []string{e.name}} }}
				estest.For(t, rules).Given(added{"a", nil}).When([]string{"b", "a"}).ThenState(cart{lines: []string{"a"}})
			}, test.texts)
		})
	}
}

func TestPureRulesPass(t *testing.T) {
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
