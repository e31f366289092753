package main

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/loans/application"
)

// tally counts what the store holds.
type tally struct {
	events       int
	longest      int   // events of one application
	amount       int64 // requested, in total
	first, last  time.Time
	activities   map[string]map[string]int // name, transition
	transitions  map[string]int
	irregular    map[application.Rule]irregularity
	broken       int // events that break a rule
	applications map[string]*history
}

// history is the state of one application.
type history struct {
	application.Application
	events    int
	irregular bool
}

// irregularity counts how often a rule is broken, with an example.
type irregularity struct {
	times int
	event string // the ID of the first record that breaks it
}

// count reads all events of applications in the store. It keeps one state per application in memory.
func count(ctx context.Context, log es.Log) (*tally, error) {
	t := &tally{
		activities:   make(map[string]map[string]int),
		transitions:  make(map[string]int),
		irregular:    make(map[application.Rule]irregularity),
		applications: make(map[string]*history),
	}
	for record, err := range log.All(ctx, 0, es.Filter{Kinds: []string{kind}}) {
		if err != nil {
			return nil, fmt.Errorf("count the stored events: %w", err)
		}
		event, err := application.Codec.Decode(record)
		if err != nil {
			return nil, fmt.Errorf("count the stored events: %w", err)
		}
		t.add(record, event)
	}
	for _, h := range t.applications {
		t.amount += h.Amount
		t.longest = max(t.longest, h.events)
	}
	return t, nil
}

func (t *tally) add(record es.Record, event application.Event) {
	t.events++
	name, transition := event.Activity()
	if t.activities[name] == nil {
		t.activities[name] = make(map[string]int)
	}
	t.activities[name][transition]++
	t.transitions[transition]++

	line := event.Logged()
	if t.first.IsZero() || line.At.Before(t.first) {
		t.first = line.At
	}
	if line.At.After(t.last) {
		t.last = line.At
	}

	h := t.applications[record.Stream.ID]
	if h == nil {
		h = &history{}
		t.applications[record.Stream.ID] = h
	}
	h.Application = application.Rules{}.Evolve(h.Application, event)
	h.events++
	if line.Breaks != "" {
		t.broken++
		h.irregular = true
		i := t.irregular[line.Breaks]
		if i.times++; i.times == 1 {
			i.event = record.ID()
		}
		t.irregular[line.Breaks] = i
	}
}
