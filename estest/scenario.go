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

// A Scenario is a history on which commands are tried. [For] begins one.
type Scenario[S, C, E any] struct {
	t     testing.TB
	rules es.Aggregate[S, C, E]
	given []E
}

// For begins a scenario of an aggregate without events.
//
// On the way it checks that the rules are pure: that Decide and Evolve give the same when they are called again, that they leave
// the state, the command and the events as they are, and that a state does not share with the one before it what both may still
// write to: maps, what pointers point to, and the room behind the end of a slice.
func For[S, C, E any](t testing.TB, rules es.Aggregate[S, C, E]) Scenario[S, C, E] {
	return Scenario[S, C, E]{t: t, rules: rules}
}

// Given returns the scenario with more events in its history. The one it is called on stays as it is, so that several may begin alike.
func (s Scenario[S, C, E]) Given(events ...E) Scenario[S, C, E] {
	s.given = append(slices.Clip(s.given), events...)
	return s
}

// When tries a command on the state that the history leads to. What it must come to is said by the methods of the outcome:
// a When without a Then fails the test, because it would test nothing.
func (s Scenario[S, C, E]) When(command C) *Outcome[S, C, E] {
	s.t.Helper()
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
	_, file, line, _ := runtime.Caller(1) // at the end of the test nobody knows it any more
	s.t.Cleanup(func() {
		if !o.asked && !s.t.Failed() {
			s.t.Errorf("%s:%d: When(%#v) has no Then, so it tests nothing: say what the command must come to", filepath.Base(file), line, command)
		}
	})
	return o
}

// An Outcome is what a command came to.
type Outcome[S, C, E any] struct {
	t       testing.TB
	command C
	events  []E
	err     error
	state   S // after the events
	asked   bool
}

// Then says that the command causes these events, in this order. They are compared with all their fields, also unexported ones.
func (o *Outcome[S, C, E]) Then(events ...E) *Outcome[S, C, E] {
	o.t.Helper()
	o.asked = true
	if o.err != nil {
		o.t.Errorf("When(%#v) was refused: %v\nwant %s", o.command, o.err, list(events))
		return o
	}
	if diff := difference(events, o.events); diff != "" && len(events)+len(o.events) > 0 {
		o.t.Errorf("When(%#v) caused other events (-want +got):\n%s", o.command, diff)
	}
	return o
}

// ThenNothing says that there is nothing to do: no events, and no error.
func (o *Outcome[S, C, E]) ThenNothing() *Outcome[S, C, E] {
	o.t.Helper()
	o.asked = true
	switch {
	case o.err != nil:
		o.t.Errorf("When(%#v) was refused: %v\nwant nothing to do", o.command, o.err)
	case len(o.events) > 0:
		o.t.Errorf("When(%#v) caused %s\nwant nothing to do", o.command, list(o.events))
	}
	return o
}

// ThenError says that the command is refused with an error that is, or wraps, the given one, as errors.Is finds out.
func (o *Outcome[S, C, E]) ThenError(target error) *Outcome[S, C, E] {
	o.t.Helper()
	o.asked = true
	switch {
	case o.err == nil:
		o.t.Errorf("When(%#v) caused %s\nwant it refused with: %v", o.command, list(o.events), target)
	case !errors.Is(o.err, target):
		o.t.Errorf("When(%#v) was refused with another error: %v\nwant: %v", o.command, o.err, target)
	}
	return o
}

// ThenCode says that the command is refused with an [es.InvariantError] of this code.
func (o *Outcome[S, C, E]) ThenCode(code string) *Outcome[S, C, E] {
	o.t.Helper()
	o.asked = true
	var broken *es.InvariantError
	switch {
	case o.err == nil:
		o.t.Errorf("When(%#v) caused %s\nwant it refused with %s", o.command, list(o.events), code)
	case !errors.As(o.err, &broken):
		o.t.Errorf("When(%#v) was refused with an error that has no code: %v\nwant %s", o.command, o.err, code)
	case broken.Code != code:
		o.t.Errorf("When(%#v) was refused with %v\nwant %s", o.command, broken, code)
	}
	return o
}

// ThenState says which state the command leads to; if it was refused or had nothing to do, that is the state it was tried on.
func (o *Outcome[S, C, E]) ThenState(state S) *Outcome[S, C, E] {
	o.t.Helper()
	o.asked = true
	if diff := difference(state, o.state); diff != "" {
		o.t.Errorf("When(%#v) leads to another state (-want +got):\n%s", o.command, diff)
	}
	return o
}

// list prints events, one a line.
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

// difference compares all fields, also unexported ones.
func difference[T any](want, got T) string {
	return cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true }), cmpopts.EquateNaNs())
}
