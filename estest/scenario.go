package estest

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/thalo-go/es"
)

// Scenario is a history of events to test commands on. [For] returns an empty one.
type Scenario[S, C, E any] struct {
	t     testing.TB
	body  string // the function that runs as t; "" if it is not known
	rules es.Aggregate[S, C, E]
	given []E
}

// For returns a scenario without events. Failures are reported to t. In a subtest, begin with [Scenario.In].
//
// The scenario also checks that the rules are pure. Decide and Evolve must return the same when they are called again and
// must not modify the state, the command or the events. A state must not share memory with the one before it that a
// later call of Evolve may write to, such as maps, values behind pointers, and the unused capacity of slices.
func For[S, C, E any](t testing.TB, rules es.Aggregate[S, C, E]) Scenario[S, C, E] {
	return Scenario[S, C, E]{t: t, body: body(), rules: rules}
}

// In returns the scenario with failures reported to t, so that subtests can share a history and fail on their own. A When in a subtest of
// the test that the scenario belongs to fails that test, because failures would not appear where they happened.
func (s Scenario[S, C, E]) In(t testing.TB) Scenario[S, C, E] {
	s.t, s.body = t, body()
	return s
}

// body returns the function that the calling goroutine runs as a test or subtest; "" if it runs none.
func body() string {
	pcs := make([]uintptr, 64)
	n := runtime.Callers(2, pcs)
	for n == len(pcs) {
		pcs = make([]uintptr, 2*len(pcs))
		n = runtime.Callers(2, pcs)
	}
	frames, last := runtime.CallersFrames(pcs[:n]), ""
	for {
		frame, more := frames.Next()
		if frame.Function == "testing.tRunner" {
			return last
		}
		if last = frame.Function; !more {
			return ""
		}
	}
}

// Given returns the scenario with more events in its history. It does not modify s, so several scenarios can share a beginning.
func (s Scenario[S, C, E]) Given(events ...E) Scenario[S, C, E] {
	s.given = append(slices.Clip(s.given), events...)
	return s
}

// When runs a command on the state after the history. The methods of the outcome compare it with what is expected.
// A When without any of them fails the test, because it tests nothing.
func (s Scenario[S, C, E]) When(command C) *Outcome[S, C, E] {
	s.t.Helper()
	if within := body(); within != s.body && within != "" && s.body != "" {
		s.t.Errorf("When(%#v) is in a subtest, but the scenario belongs to %s, where failures would appear: begin with In(t)", command, s.t.Name())
	}
	pure := purity[S, C, E]{s.t, s.rules}
	var state S
	for _, event := range s.given {
		state = pure.evolve(state, event)
	}
	o := &Outcome[S, C, E]{t: s.t, command: command, state: state}
	o.events, o.err = pure.decide(state, command)
	if o.err == nil {
		for _, event := range o.events {
			o.state = pure.evolve(o.state, event)
		}
	}
	_, file, line, _ := runtime.Caller(1) // no longer on the stack at the end of the test
	s.t.Cleanup(func() {
		if !o.compared && !s.t.Failed() {
			s.t.Errorf("%s:%d: When(%#v) has no Then, so it tests nothing: state the expected outcome", filepath.Base(file), line, command)
		}
	})
	return o
}

// Outcome holds what a command returned, to be checked.
type Outcome[S, C, E any] struct {
	t       testing.TB
	command C
	events  []E
	err     error
	state   S // after the events

	compared bool // whether any of the methods was called
}

// Then expects these events, in this order. Events are compared with all their fields, including unexported ones.
func (o *Outcome[S, C, E]) Then(events ...E) *Outcome[S, C, E] {
	o.t.Helper()
	o.compared = true
	if o.err != nil {
		o.t.Errorf("When(%#v) was refused: %v\nwant %s", o.command, o.err, list(events))
		return o
	}
	if diff := difference(events, o.events); diff != "" && len(events)+len(o.events) > 0 {
		o.t.Errorf("When(%#v) caused other events (-want +got):\n%s", o.command, diff)
	}
	return o
}

// ThenNothing expects neither events nor an error.
func (o *Outcome[S, C, E]) ThenNothing() *Outcome[S, C, E] {
	o.t.Helper()
	o.compared = true
	switch {
	case o.err != nil:
		o.t.Errorf("When(%#v) was refused: %v\nwant no events", o.command, o.err)
	case len(o.events) > 0:
		o.t.Errorf("When(%#v) caused %s\nwant no events", o.command, list(o.events))
	}
	return o
}

// ThenError expects an error that matches the target by errors.Is.
func (o *Outcome[S, C, E]) ThenError(target error) *Outcome[S, C, E] {
	o.t.Helper()
	o.compared = true
	switch {
	case o.err == nil:
		o.t.Errorf("When(%#v) caused %s\nwant the error: %v", o.command, list(o.events), target)
	case !errors.Is(o.err, target):
		o.t.Errorf("When(%#v) was refused with another error: %v\nwant: %v", o.command, o.err, target)
	}
	return o
}

// ThenCode expects an [es.InvariantError] with this code.
func (o *Outcome[S, C, E]) ThenCode(code string) *Outcome[S, C, E] {
	o.t.Helper()
	o.compared = true
	var broken *es.InvariantError
	switch {
	case o.err == nil:
		o.t.Errorf("When(%#v) caused %s\nwant an error with the code %s", o.command, list(o.events), code)
	case !errors.As(o.err, &broken):
		o.t.Errorf("When(%#v) was refused with an error that has no code: %v\nwant %s", o.command, o.err, code)
	case broken.Code != code:
		o.t.Errorf("When(%#v) was refused with %v\nwant %s", o.command, broken, code)
	}
	return o
}

// ThenState expects this state after the command. If the command was refused or had no events, that is the state before it.
func (o *Outcome[S, C, E]) ThenState(state S) *Outcome[S, C, E] {
	o.t.Helper()
	o.compared = true
	if diff := difference(state, o.state); diff != "" {
		o.t.Errorf("When(%#v) leads to another state (-want +got):\n%s", o.command, diff)
	}
	return o
}

// list formats events, one per line.
func list[E any](events []E) string {
	if len(events) == 0 {
		return "no events"
	}
	var text strings.Builder
	text.WriteString("the events")
	for _, event := range events {
		fmt.Fprintf(&text, "\n\t%#v", event)
	}
	return text.String()
}

// difference compares all fields, including unexported ones.
func difference[T any](want, got T) string {
	message := cmp.FilterPath(func(p cmp.Path) bool { return isMessage(p.Last().Type()) }, cmp.Transformer("Message", func(v any) string {
		if m := reflect.ValueOf(v); !m.IsNil() {
			return text(m)
		}
		return "nil"
	}))
	return cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true }), cmpopts.EquateNaNs(), message)
}
