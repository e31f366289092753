package estest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// purity calls the rules and checks that they are pure.
type purity[S, C, E any] struct {
	t     testing.TB
	rules es.Aggregate[S, C, E]
}

const remedy = "\nRules must be pure: a Repo calls them again after a conflict, and shares one state among many callers."

// decide decides twice.
func (p purity[S, C, E]) decide(state S, command C) ([]E, error) {
	p.t.Helper()
	stateBefore, commandBefore := picture(state), picture(command)
	events, err := p.rules.Decide(state, command)
	first := picture(events) + fmt.Sprintf("error: %v\n", err)
	events, err = p.rules.Decide(state, command)
	second := picture(events) + fmt.Sprintf("error: %v\n", err)
	p.same(first, second, "Decide(%#v) gives something else the second time: what depends on a clock, on chance or on the order of a map belongs into the command", command)
	p.same(stateBefore, picture(state), "Decide(%#v) changes the state it is given: it may only read it", command)
	p.same(commandBefore, picture(command), "Decide(%#v) changes the command it is given: it may only read it", command)
	return events, err
}

// evolve evolves twice, once on a state whose slices have room behind their ends.
func (p purity[S, C, E]) evolve(state S, event E) S {
	p.t.Helper()
	stateBefore, eventBefore := picture(state), picture(event)
	next := p.rules.Evolve(state, event)
	first := picture(next)
	if !p.same(stateBefore, picture(state), "Evolve(%#v) changes the state it is given: copy the map, slice or value that changes (maps.Clone, slices.Clone)", event) {
		return next // from a state that has changed, something else follows anyhow
	}

	roomy, rooms := withRoom(state)
	again := p.rules.Evolve(roomy, event)
	for _, room := range rooms {
		if room.used() {
			p.t.Errorf("Evolve(%#v) appends to %s of the state it is given, in the room behind its end: two states that grow from one overwrite each other's elements. Append to a copy: append(slices.Clip(s), ...)%s", event, room.path, remedy)
		}
	}
	p.same(first, picture(again), "Evolve(%#v) gives something else the second time: a state follows from the events alone", event)
	p.same(eventBefore, picture(event), "Evolve(%#v) changes the event it is given: it may only read it", event)
	return next
}

// same compares what was before with what is after.
func (p purity[S, C, E]) same(before, after, format string, args ...any) bool {
	p.t.Helper()
	if before == after {
		return true
	}
	diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n"))
	p.t.Errorf("%s%s\n(-before +after):\n%s", fmt.Sprintf(format, args...), remedy, diff)
	return false
}

// picture describes all that a value consists of, line by line, through pointers, maps, slices and unexported fields.
// It is text, so it stays as it is when the value does not.
func picture(v any) string {
	var p painter
	p.paint("", reflect.ValueOf(v), nil)
	return p.text.String()
}

type painter struct{ text strings.Builder }

func (p *painter) line(path, format string, args ...any) {
	fmt.Fprintf(&p.text, "%s: %s\n", strings.TrimPrefix(path, "."), fmt.Sprintf(format, args...))
}

// paint describes what lies at a path. within are the pointers that led there.
func (p *painter) paint(path string, v reflect.Value, within []unsafe.Pointer) {
	switch v.Kind() {
	case reflect.Invalid:
		p.line(path, "nil")
	case reflect.Pointer:
		switch at := v.UnsafePointer(); {
		case v.IsNil():
			p.line(path, "nil")
		case v.Type() == reflect.TypeFor[*time.Location]():
			p.line(path, "%p", at) // a time zone has hundreds of lines, and never changes
		case slices.Contains(within, at):
			p.line(path, "a cycle")
		default:
			p.paint(path, v.Elem(), append(slices.Clip(within), at))
		}
	case reflect.Interface:
		if !v.IsNil() {
			p.line(path, "%v", v.Elem().Type())
		}
		p.paint(path, v.Elem(), within)
	case reflect.Struct:
		for i := range v.NumField() {
			p.paint(path+"."+v.Type().Field(i).Name, v.Field(i), within)
		}
	case reflect.Map:
		p.paintMap(path, v, within)
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			p.line(path, "%q", v.Bytes())
			return
		}
		p.line(path, "%d elements", v.Len())
		for i := range v.Len() {
			p.paint(fmt.Sprintf("%s[%d]", path, i), v.Index(i), within)
		}
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		p.line(path, "%v", v.IsNil())
	default:
		p.line(path, "%#v", v)
	}
}

// paintMap describes a map in the order of what its keys look like.
func (p *painter) paintMap(path string, v reflect.Value, within []unsafe.Pointer) {
	at := v.UnsafePointer()
	if !v.IsNil() && slices.Contains(within, at) {
		p.line(path, "a cycle")
		return
	}
	within = append(slices.Clip(within), at)
	p.line(path, "%d entries", v.Len())
	var entries []string
	for key, value := range v.Seq2() {
		var k, entry painter
		k.paint("", key, within)
		name := strings.TrimPrefix(strings.TrimSpace(k.text.String()), ": ")
		entry.paint(path+"["+name+"]", value, within)
		entries = append(entries, entry.text.String())
	}
	slices.Sort(entries)
	for _, entry := range entries {
		p.text.WriteString(entry)
	}
}

// A room is the free capacity behind the end of a slice.
type room struct {
	path string
	free reflect.Value
}

func (r room) used() bool {
	for i := range r.free.Len() {
		if !r.free.Index(i).IsZero() {
			return true
		}
	}
	return false
}

// withRoom returns a copy of a state in which the slices, those that do not lie behind a pointer or in a map, have been moved to
// where there is room behind their ends. An append finds such room sooner or later, but not in the few events of a test.
func withRoom[S any](state S) (S, []room) {
	var rooms []room
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
			roomy := reflect.MakeSlice(v.Type(), v.Len(), v.Len()+more)
			// The detour through the address reaches unexported fields; what is written is our own copy.
			field := reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
			reflect.Copy(roomy, field)
			field.Set(roomy)
			rooms = append(rooms, room{strings.TrimPrefix(path, "."), roomy.Slice(v.Len(), v.Len()+more)})
		}
	}
	move("", reflect.ValueOf(&state).Elem())
	return state, rooms
}
