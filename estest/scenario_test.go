package estest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
)

// tally is a counter. Its rules accept a few commands by name.
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
	return nil, es.Invariant("UNKNOWN", "no such command: %s", c)
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
		{"the expected events", func(t testing.TB) { given(t).When("two").Then(counted{1, []string{"first"}}, counted{by: 1}) }, nil},
		{"another field", func(t testing.TB) { given(t).When("one").Then(counted{by: 2}) }, []string{`When("one") caused other events`, "-", "2,", "+", "1,"}},
		{"another field within a field", func(t testing.TB) { given(t).When("two").Then(counted{1, []string{"second"}}, counted{by: 1}) }, []string{`"second"`, `"first"`}},
		{"one event too few", func(t testing.TB) { given(t).When("two").Then(counted{1, []string{"first"}}) }, []string{"caused other events"}},
		{"events where none are wanted", func(t testing.TB) { given(t).When("one").Then() }, []string{"caused other events"}},
		{"no events where one is wanted", func(t testing.TB) { given(t).When("nothing").Then(counted{by: 1}) }, []string{"caused other events"}},
		{"a refusal where events are wanted", func(t testing.TB) { given(t).When("fly").Then(counted{by: 1}) }, []string{"was refused: UNKNOWN: no such command: fly", "counted{by:1"}},
		{"no events where none are wanted", func(t testing.TB) { given(t).When("nothing").Then(); given(t).When("no events").Then() }, nil},

		{"no events", func(t testing.TB) { given(t).When("nothing").ThenNothing(); given(t).When("no events").ThenNothing() }, nil},
		{"events where ThenNothing wants none", func(t testing.TB) { given(t).When("one").ThenNothing() }, []string{"counted{by:1", "want no events"}},
		{"a refusal where ThenNothing wants none", func(t testing.TB) { given(t).When("fail").ThenNothing() }, []string{"counting to 6: the counter is broken", "want no events"}},

		{"the expected error", func(t testing.TB) {
			given(t).When("fail").ThenError(errBroken)
			given(t).When("both").ThenError(errBroken)
		}, nil},
		{"another error", func(t testing.TB) { given(t).When("fly").ThenError(errBroken) }, []string{"UNKNOWN: no such command: fly", "want: the counter is broken"}},
		{"no error where one is wanted", func(t testing.TB) { given(t).When("one").ThenError(errBroken) }, []string{"counted{by:1", "want the error: the counter is broken"}},
		{"no events where an error is wanted", func(t testing.TB) { given(t).When("nothing").ThenError(errBroken) }, []string{"caused no events"}},

		{"the expected code", func(t testing.TB) { given(t).When("fly").ThenCode("UNKNOWN") }, nil},
		{"another code", func(t testing.TB) { given(t).When("fly").ThenCode("FORBIDDEN") }, []string{"UNKNOWN: no such command", "want FORBIDDEN"}},
		{"an error without a code", func(t testing.TB) { given(t).When("fail").ThenCode("UNKNOWN") }, []string{"no code", "want UNKNOWN"}},
		{"no error where a code is wanted", func(t testing.TB) { given(t).When("one").ThenCode("UNKNOWN") }, []string{"counted{by:1", "want an error with the code UNKNOWN"}},

		{"the expected state", func(t testing.TB) { given(t).When("two").ThenState(tally{7, 3}) }, nil},
		{"the state before the command after no events or a refusal", func(t testing.TB) {
			given(t).When("nothing").ThenState(tally{5, 1})
			given(t).When("fly").ThenState(tally{5, 1})
			given(t).When("both").ThenState(tally{5, 1})
			estest.For(t, counting{}).When("fly").ThenState(tally{})
		}, nil},
		{"another state", func(t testing.TB) { given(t).When("two").ThenState(tally{7, 2}) }, []string{"leads to another state", "steps:", "2", "3"}},
		{"several comparisons of one outcome", func(t testing.TB) { given(t).When("one").Then(counted{by: 1}).ThenState(tally{6, 2}) }, nil},
		{"a failing second comparison of an outcome", func(t testing.TB) { given(t).When("one").Then(counted{by: 1}).ThenState(tally{}) }, []string{"another state"}},

		{"a When without a Then", func(t testing.TB) { given(t).When("one") }, []string{"scenario_test.go:", `When("one") has no Then`}},
		{"a second When without a Then", func(t testing.TB) {
			s := given(t)
			s.When("one").Then(counted{by: 1})
			s.When("two")
		}, []string{`When("two") has no Then`}},
		{"scenarios that share a beginning", func(t testing.TB) {
			s := given(t).Given(counted{by: 0}).Given(counted{by: 0}) // by now the slice of events has unused capacity
			a, b := s.Given(counted{by: 1}), s.Given(counted{by: 2})
			s.When("one").ThenState(tally{6, 4})
			a.When("one").ThenState(tally{7, 5})
			b.When("one").ThenState(tally{8, 5})
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) { recorder.Fails(t, test.run, test.texts...) })
	}
}

// A failure appears at the subtest that causes it, also if the history is that of the test around it.
func TestInReportsToTheSubtest(t *testing.T) {
	outer := recorder.T{TB: t}
	shared := estest.For(&outer, counting{}).Given(counted{by: 5})
	t.Run("with In", func(t *testing.T) {
		recorder.Fails(t, func(t testing.TB) { shared.In(t).When("one").ThenNothing() }, "want no events")
	})
	if outer.Failed() {
		t.Errorf("the failure of a subtest was reported to the test around it: %q", outer.Failures)
	}
	t.Run("without In", func(*testing.T) { shared.When("one").Then(counted{by: 1}) })
	if len(outer.Failures) != 1 || !strings.Contains(outer.Failures[0], `When("one") is in a subtest, but the scenario belongs to TestInReportsToTheSubtest`) || !strings.Contains(outer.Failures[0], "begin with In(t)") {
		t.Errorf("a scenario in the wrong test reported %q", outer.Failures)
	}
	shared.When("one").Then(counted{by: 1})
	if len(outer.Failures) != 1 {
		t.Errorf("a scenario in its own test reported %q", outer.Failures[1:])
	}
}
