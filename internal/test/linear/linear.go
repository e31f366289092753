// Package linear checks that commands and loads are linearizable: all answers, from any process and under any
// concurrency, can be explained by each call taking effect at one instant between its start and its end.
//
// The model runs the rules on one state after the other; porcupine searches for the order.
package linear

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/thalo-go/es"
)

// An Answer is the result of a call of Execute or Load.
type Answer struct {
	State   string     // formatted with %+v
	Version es.Version // of the state
	Events  int        // number of events of the command
	Refused string     // the code of an invariant, or "conflict" for a command with an expected version; the rest is empty then
	Unknown bool       // the call may have taken effect at any later time, or never; the rest is empty then
}

// A Call is a call of Execute, or of Load if Command is nil.
type Call[C any] struct {
	ID        string      // of the aggregate
	Command   *C          // nil for Load
	CommandID string      // if not empty, as es.CommandID
	Expected  *es.Version // if not nil, as es.ExpectVersion
}

// A History records calls, answers and times. It may be used from several goroutines.
type History[S comparable, C, E any] struct {
	// Rules are the rules of the aggregate. Different states must print differently.
	Rules es.Aggregate[S, C, E]

	mu    sync.Mutex
	start time.Time
	calls []porcupine.Operation
}

// Do makes a call and records it. Each client, numbered from 0, makes one call at a time. The function returns the
// answer, or false if the call failed with an error that guarantees that it had no effect.
func (h *History[S, C, E]) Do(client int, call Call[C], do func() (Answer, bool)) {
	begin := h.now()
	answer, made := do()
	end := h.now()
	if !made {
		return // if it had an effect after all, later answers could not be explained
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, porcupine.Operation{ClientId: client, Input: call, Output: answer, Call: begin, Return: end})
}

func (h *History[S, C, E]) now() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.start.IsZero() {
		h.start = time.Now()
	}
	return time.Since(h.start).Nanoseconds() + 1
}

// Count returns the number of recorded calls, and how many have an unknown outcome.
func (h *History[S, C, E]) Count() (calls, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		if c.Output.(Answer).Unknown {
			unknown++
		}
	}
	return len(h.calls), unknown
}

// Check returns an error if no order explains the answers. It then writes the history as evidence to a file of this
// name, a page for a browser.
func (h *History[S, C, E]) Check(evidence string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := slices.Clone(h.calls)
	never := h.nanoseconds() + 1
	for i := range calls {
		if calls[i].Output.(Answer).Unknown {
			calls[i].Return = never // after all other calls, where it has no visible effect
		}
	}
	model := h.model()
	result, info := porcupine.CheckOperationsVerbose(model, calls, 2*time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	if err := porcupine.VisualizePath(model, info, evidence); err != nil {
		return fmt.Errorf("linear: keep the evidence: %w", err)
	}
	if result == porcupine.Unknown {
		return fmt.Errorf("linear: no order found for %d calls within 2 minutes, which is inconclusive: use a smaller history (see %s)", len(calls), evidence)
	}
	return fmt.Errorf("linear: no order of the %d calls explains their answers: see %s", len(calls), evidence)
}

func (h *History[S, C, E]) nanoseconds() int64 { return time.Since(h.start).Nanoseconds() + 1 }

// CheckTest fails a test whose history is not linearizable, and keeps the evidence in the test's artifact folder.
func (h *History[S, C, E]) CheckTest(t testing.TB) {
	t.Helper()
	calls, unknown := h.Count()
	begin := time.Now()
	if err := h.Check(t.ArtifactDir() + "/history.html"); err != nil {
		t.Error(err)
	}
	t.Logf("%d calls, %d of unknown outcome, checked in %v", calls, unknown, time.Since(begin).Round(time.Millisecond))
}

// state is the state of one aggregate in the model.
type state[S any] struct {
	of      S
	version es.Version
	done    map[string]Answer // to commands with an id
}

func (h *History[S, C, E]) model() porcupine.Model {
	return porcupine.Model{
		Partition: func(calls []porcupine.Operation) (parts [][]porcupine.Operation) {
			byID := make(map[string][]porcupine.Operation)
			for _, c := range calls {
				id := c.Input.(Call[C]).ID
				byID[id] = append(byID[id], c)
			}
			for _, id := range slices.Sorted(maps.Keys(byID)) {
				parts = append(parts, byID[id])
			}
			return parts
		},
		Init: func() any { return state[S]{} },
		Step: func(before, input, output any) (bool, any) {
			after, want := h.step(before.(state[S]), input.(Call[C]))
			got := output.(Answer)
			return got == want || got.Unknown, after
		},
		Equal: func(a, b any) bool {
			one, two := a.(state[S]), b.(state[S])
			return one.of == two.of && one.version == two.version && maps.Equal(one.done, two.done)
		},
		DescribeOperation: func(input, output any) string { return describe(input.(Call[C]), output.(Answer)) },
		DescribeState: func(s any) string {
			return fmt.Sprintf("%+v at version %d", s.(state[S]).of, s.(state[S]).version)
		},
	}
}

// step applies a call to the state and returns the answer.
func (h *History[S, C, E]) step(s state[S], call Call[C]) (state[S], Answer) {
	if call.Command == nil {
		return s, Answer{State: Print(s.of), Version: s.version}
	}
	if answer, found := s.done[call.CommandID]; found {
		return s, answer
	}
	if call.Expected != nil && *call.Expected != s.version {
		return s, Answer{Refused: "conflict"}
	}
	events, err := h.Rules.Decide(s.of, *call.Command)
	if err != nil {
		return s, Answer{Refused: Refusal(err)}
	}
	for _, e := range events {
		s.of = h.Rules.Evolve(s.of, e)
		s.version++
	}
	answer := Answer{State: Print(s.of), Version: s.version, Events: len(events)}
	if call.CommandID != "" && len(events) > 0 {
		done := maps.Clone(s.done)
		if done == nil {
			done = make(map[string]Answer)
		}
		done[call.CommandID] = answer
		s.done = done
	}
	return s, answer
}

// Print formats a state for an [Answer].
func Print(state any) string { return fmt.Sprintf("%+v", state) }

func describe[C any](call Call[C], answer Answer) string {
	what := "load"
	if call.Command != nil {
		what = fmt.Sprintf("%T%+v", *call.Command, *call.Command)
	}
	if call.CommandID != "" {
		what += " as " + call.CommandID
	}
	if call.Expected != nil {
		what += fmt.Sprintf(" at version %d", *call.Expected)
	}
	if answer.Unknown {
		return what + " → unknown"
	}
	return what + " → " + cmp.Or(answer.Refused, fmt.Sprintf("%s at version %d, %d events", answer.State, answer.Version, answer.Events))
}
