package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/thalo-go/es/examples/loans/application"
	"github.com/thalo-go/es/examples/loans/xes"
)

// line is one event of the file, as a command on an application.
type line struct {
	number           int // in the file
	name, transition string
	application.Line
	command func(application.Line) application.Command
}

// linesOf returns the number of the application of a trace and its events in order.
func linesOf(t xes.Trace) (id string, lines []line, err error) {
	id, _ = t.Value("concept:name")
	if id == "" {
		return "", nil, fmt.Errorf("line %d: the trace has no concept:name, the number of the application", t.Line)
	}
	text, _ := t.Value("AMOUNT_REQ")
	amount, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return "", nil, fmt.Errorf("line %d: application %s: AMOUNT_REQ is %q, want an integer", t.Line, id, text)
	}
	lines = make([]line, len(t.Events))
	for i, e := range t.Events {
		if lines[i], err = lineOf(e, amount); err != nil {
			return "", nil, fmt.Errorf("line %d: application %s: %w", e.Line, id, err)
		}
	}
	return id, lines, nil
}

func lineOf(e xes.Event, amount int64) (line, error) {
	l := line{number: e.Line}
	l.name, _ = e.Value("concept:name")
	l.transition, _ = e.Value("lifecycle:transition")
	l.By, _ = e.Value("org:resource")
	text, _ := e.Value("time:timestamp")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return l, fmt.Errorf("time:timestamp is %q, want a time such as 2011-10-01T00:38:44.546+02:00", text)
	}
	l.At = at
	if l.command = commandOf(l.name, l.transition, amount); l.command == nil {
		return l, fmt.Errorf("no command for activity %q with life-cycle %q", l.name, l.transition)
	}
	return l, nil
}

// commandOf returns a function that makes the command for an activity, or nil. The rules decide which names are known.
func commandOf(name, transition string, amount int64) func(application.Line) application.Command {
	kind, _, _ := strings.Cut(name, "_")
	switch {
	case kind == "W" && transition == application.TransitionSchedule:
		return func(l application.Line) application.Command {
			return application.Schedule{Line: l, Item: application.Item(name)}
		}
	case kind == "W" && transition == application.TransitionStart:
		return func(l application.Line) application.Command {
			return application.Start{Line: l, Item: application.Item(name)}
		}
	case kind == "W" && transition == application.TransitionComplete:
		return func(l application.Line) application.Command {
			return application.Complete{Line: l, Item: application.Item(name)}
		}
	case transition != application.TransitionComplete:
		return nil
	case name == string(application.StageSubmitted):
		return func(l application.Line) application.Command { return application.Submit{Line: l, Amount: amount} }
	case kind == "A":
		return func(l application.Line) application.Command {
			return application.Move{Line: l, To: application.Stage(name)}
		}
	case kind == "O":
		return func(l application.Line) application.Command {
			return application.Offer{Line: l, Step: application.Step(name)}
		}
	}
	return nil
}

// is reports whether an event is the one that the line describes.
func (l line) is(e application.Event) bool {
	name, transition := e.Activity()
	logged := e.Logged()
	return name == l.name && transition == l.transition && logged.At.Equal(l.At) && logged.By == l.By
}
