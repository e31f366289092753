package estest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// purity calls rules and checks that they are pure.
type purity[S, C, E any] struct {
	t     testing.TB
	rules es.Aggregate[S, C, E]
}

const remedy = "\nRules must be pure: a Repo calls them again after a conflict and shares one state among many callers."

// decide calls Decide twice.
func (p purity[S, C, E]) decide(state S, command C) ([]E, error) {
	p.t.Helper()
	stateBefore, commandBefore := picture(state), picture(command)
	events, err := p.rules.Decide(state, command)
	first := picture(events) + fmt.Sprintf("error: %v\n", err)
	events, err = p.rules.Decide(state, command)
	second := picture(events) + fmt.Sprintf("error: %v\n", err)
	p.same(first, second, "Decide(%#v) returns something else the second time: pass values from a clock or a random source in the command, and sort map keys", command)
	p.same(stateBefore, picture(state), "Decide(%#v) modifies the state", command)
	p.same(commandBefore, picture(command), "Decide(%#v) modifies the command", command)
	return events, err
}

// evolve calls Evolve twice, the second time on a state whose slices have unused capacity.
func (p purity[S, C, E]) evolve(state S, event E) S {
	p.t.Helper()
	stateBefore, eventBefore := picture(state), picture(event)
	next := p.rules.Evolve(state, event)
	first := picture(next)
	if !p.same(stateBefore, picture(state), "Evolve(%#v) modifies the state: copy the map, slice or value before changing it (maps.Clone, slices.Clone)", event) {
		return next // a second call on the modified state would return something else anyway
	}

	grown, spares := withSpare(state)
	again := p.rules.Evolve(grown, event)
	for _, spare := range spares {
		if spare.used() {
			p.t.Errorf("Evolve(%#v) appends to %s in place, so two states that follow from one overwrite each other: use append(slices.Clip(s), ...)%s", event, spare.path, remedy)
		}
	}
	p.same(first, picture(again), "Evolve(%#v) returns something else the second time: the state must depend on the events alone", event)
	p.same(eventBefore, picture(event), "Evolve(%#v) modifies the event", event)
	return next
}

// same reports whether two descriptions are equal, and fails the test if not.
func (p purity[S, C, E]) same(before, after, format string, args ...any) bool {
	p.t.Helper()
	if before == after {
		return true
	}
	diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n"))
	p.t.Errorf("%s%s\n(-before +after):\n%s", fmt.Sprintf(format, args...), remedy, diff)
	return false
}

// spare is the unused capacity of a slice.
type spare struct {
	path string
	free reflect.Value
}

func (s spare) used() bool {
	for i := range s.free.Len() {
		if !s.free.Index(i).IsZero() {
			return true
		}
	}
	return false
}

// withSpare returns a copy of a state whose slices have unused capacity, except those behind pointers and in maps.
// In a program, append finds such capacity sooner or later; with the few events of a test it does not.
func withSpare[S any](state S) (S, []spare) {
	var spares []spare
	var move func(path string, v reflect.Value)
	move = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				move(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Array:
			for i := range v.Len() {
				move(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
			}
		case reflect.Slice:
			if v.IsNil() {
				return
			}
			const more = 8
			grown := reflect.MakeSlice(v.Type(), v.Len(), v.Len()+more)
			// Going through the address gives access to unexported fields. Only the copy is written.
			field := reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
			reflect.Copy(grown, field)
			field.Set(grown)
			spares = append(spares, spare{strings.TrimPrefix(path, "."), grown.Slice(v.Len(), v.Len()+more)})
		}
	}
	move("", reflect.ValueOf(&state).Elem())
	return state, spares
}
