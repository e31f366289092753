package estest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
)

// A tally counts. Its rules know a few commands by name.
type (
	tally   struct{ total, steps int }
	counted struct {
		by   int
		note []string
	}
	counting struct{}
)

var errBroken = errors.New("the counter is broken") //nolint:gochecknoglobals // an error to compare with

func (counting) Decide(s tally, c string) ([]counted, error) {
	switch c {
	case "one":
		return []counted{{by: 1}}, nil
	case "two":
		return []counted{{by: 1, note: []string{"first"}}, {by: 1}}, nil
	case "nothing":
		return nil, nil
	case "no events":
		return []counted{}, nil
	case "both":
		return []counted{{by: 1}}, errBroken
	case "fail":
		return nil, fmt.Errorf("counting to %d: %w", s.total+1, errBroken)
	}
	return nil, es.Invariant("UNKNOWN", "nobody knows how to %s", c)
}

func (counting) Evolve(s tally, e counted) tally { return tally{s.total + e.by, s.steps + 1} }

func TestScenario(t *testing.T) {
	given := func(t testing.TB) estest.Scenario[tally, string, counted] {
		return estest.For(t, counting{}).Given(counted{by: 5})
	}
	for _, test := range []struct {
		name  string
		run   func(t testing.TB)
		texts []string
	}{
		{"the events are those", func(t testing.TB) { given(t).When("two").Then(counted{1, []string{"first"}}, counted{by: 1}) }, nil},
		{"another field", func(t testing.TB) { given(t).When("one").Then(counted{by: 2}) }, []string{`When("one") caused other events`, "-", "2,", "+", "1,"}},
		{"another field within a field", func(t testing.TB) { given(t).When("two").Then(counted{1, []string{"second"}}, counted{by: 1}) }, []string{`"second"`, `"first"`}},
		{"one event too few", func(t testing.TB) { given(t).When("two").Then(counted{1, []string{"first"}}) }, []string{"caused other events"}},
		{"events where none are wanted", func(t testing.TB) { given(t).When("one").Then() }, []string{"caused other events"}},
		{"no events where one is wanted", func(t testing.TB) { given(t).When("nothing").Then(counted{by: 1}) }, []string{"caused other events"}},
		{"a refusal where events are wanted", func(t testing.TB) { given(t).When("fly").Then(counted{by: 1}) }, []string{"was refused: UNKNOWN: nobody knows how to fly", "counted{by:1"}},
		{"no events are wanted by none given", func(t testing.TB) { given(t).When("nothing").Then(); given(t).When("no events").Then() }, nil},

		{"nothing to do", func(t testing.TB) { given(t).When("nothing").ThenNothing(); given(t).When("no events").ThenNothing() }, nil},
		{"something to do", func(t testing.TB) { given(t).When("one").ThenNothing() }, []string{"counted{by:1", "want nothing to do"}},
		{"a refusal where nothing is to do", func(t testing.TB) { given(t).When("fail").ThenNothing() }, []string{"counting to 6: the counter is broken", "want nothing to do"}},

		{"the error is that one", func(t testing.TB) {
			given(t).When("fail").ThenError(errBroken)
			given(t).When("both").ThenError(errBroken)
		}, nil},
		{"another error", func(t testing.TB) { given(t).When("fly").ThenError(errBroken) }, []string{"UNKNOWN: nobody knows how to fly", "want: the counter is broken"}},
		{"no error where one is wanted", func(t testing.TB) { given(t).When("one").ThenError(errBroken) }, []string{"counted{by:1", "want it refused with: the counter is broken"}},
		{"nothing to do where an error is wanted", func(t testing.TB) { given(t).When("nothing").ThenError(errBroken) }, []string{"caused no events"}},

		{"the code is that one", func(t testing.TB) { given(t).When("fly").ThenCode("UNKNOWN") }, nil},
		{"another code", func(t testing.TB) { given(t).When("fly").ThenCode("FORBIDDEN") }, []string{"UNKNOWN: nobody", "want FORBIDDEN"}},
		{"an error without a code", func(t testing.TB) { given(t).When("fail").ThenCode("UNKNOWN") }, []string{"no code", "want UNKNOWN"}},
		{"no error where a code is wanted", func(t testing.TB) { given(t).When("one").ThenCode("UNKNOWN") }, []string{"counted{by:1", "want it refused with UNKNOWN"}},

		{"the state is that", func(t testing.TB) { given(t).When("two").ThenState(tally{7, 3}) }, nil},
		{"the state after nothing or a refusal is that before", func(t testing.TB) {
			given(t).When("nothing").ThenState(tally{5, 1})
			given(t).When("fly").ThenState(tally{5, 1})
			given(t).When("both").ThenState(tally{5, 1})
			estest.For(t, counting{}).When("fly").ThenState(tally{})
		}, nil},
		{"another state", func(t testing.TB) { given(t).When("two").ThenState(tally{7, 2}) }, []string{"leads to another state", "steps:", "2", "3"}},
		{"several things about one outcome", func(t testing.TB) { given(t).When("one").Then(counted{by: 1}).ThenState(tally{6, 2}) }, nil},
		{"the second thing about an outcome", func(t testing.TB) { given(t).When("one").Then(counted{by: 1}).ThenState(tally{}) }, []string{"another state"}},

		{"a When without a Then", func(t testing.TB) { given(t).When("one") }, []string{"scenario_test.go:", `When("one") has no Then`}},
		{"a second When without a Then", func(t testing.TB) {
			s := given(t)
			s.When("one").Then(counted{by: 1})
			s.When("two")
		}, []string{`When("two") has no Then`}},
		{"scenarios that begin alike", func(t testing.TB) {
			s := given(t).Given(counted{by: 0}).Given(counted{by: 0}) // by now there is room behind the slice of events
			a, b := s.Given(counted{by: 1}), s.Given(counted{by: 2})
			s.When("one").ThenState(tally{6, 4})
			a.When("one").ThenState(tally{7, 5})
			b.When("one").ThenState(tally{8, 5})
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) { recorder.Fails(t, test.run, test.texts...) })
	}
}
