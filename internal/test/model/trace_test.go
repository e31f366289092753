package model_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/thalo-go/es/internal/test/trace"
)

// The checker of traces follows the model: it accepts what the protocol may do, and finds each broken one.

const spread = 1 << 20 // between the tickets of two tokens of the model, so that a fence has only its own

// walk takes random steps until none is left or the checker objects, and returns them and the objection.
func (p protocol) walk(random *rand.Rand, m machine) (steps []string, objection error) {
	var c trace.Checker
	run := 0
	for objection == nil {
		type successor struct {
			step string
			m    machine
		}
		var all []successor
		p.next(m, func(step string, next machine) { all = append(all, successor{step, next}) })
		if len(all) == 0 {
			break
		}
		next := all[random.IntN(len(all))]
		steps = append(steps, next.step)
		if next.step == "crash" {
			run++
		}
		objection = judge(&c, p, run, m, next.m, next.step)
		m = next.m
	}
	return steps, objection
}

// judge shows the checker a step of the model.
func judge(c *trace.Checker, p protocol, run int, before, after machine, step string) error {
	var what string
	var t int
	_, _ = fmt.Sscan(step, &what, &t)
	ticket := int64(t+1) * spread
	request := func(t int) string { return fmt.Sprint("request ", t/tries) }
	var done []trace.Transaction
	switch what {
	case "left":
		if before.left != after.left {
			done = append(done, trace.Transaction{By: trace.Leave, Left: []trace.Request{{Ticket: ticket, Events: 1}}})
		}
	case "resolve":
		var fenced []int64
		if !p.noFence && !before.events.has(t) {
			fenced = []int64{ticket}
		}
		done = append(done, trace.Transaction{By: trace.Resolve, Fenced: fenced})
		if before.left.has(t) && !after.left.has(t) {
			done = append(done, trace.Transaction{By: trace.Withdraw, Removed: []int64{ticket}})
		}
	case "commit":
		tx := trace.Transaction{By: trace.Serve, Answered: make(map[int64]int64)}
		if p.direct(t / (requests * tries)) {
			tx.By = trace.Append
		}
		for x := range tokens {
			at := int64(x+1) * spread
			if before.pending.has(x) {
				tx.Wrote = append(tx.Wrote, trace.Event{Token: at + 1, Name: request(x)})
			}
			if x != t && before.pending.has(x) {
				tx.Answered[at] = 0
			}
			if before.refused.has(x) {
				tx.Answered[at] = -4
			}
			if before.left.has(x) && !after.left.has(x) {
				tx.Removed = append(tx.Removed, at)
			}
		}
		done = append(done, tx)
	}
	for _, tx := range done {
		tx.Run = run
		if err := c.Commit(tx); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	for i := range after.clients {
		for r, told := range after.clients[i].told {
			if told == before.clients[i].told[r] {
				continue
			}
			outcome := map[int8]trace.Outcome{written: trace.Written, notWritten: trace.NotWritten, unknown: trace.Unknown}[told]
			if err := c.Told(request((i*requests+r)*tries), outcome); err != nil {
				return fmt.Errorf("%s: %w", step, err)
			}
		}
	}
	return nil
}

var allFaults = machine{losses: 2, crashes: 1, ends: 2, leaves: 1, sweeps: 1}

func TestTracesOfTheModelAreAccepted(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, p := range []protocol{{}, {old: true}} {
		for range 3000 {
			if steps, err := p.walk(random, allFaults); err != nil {
				t.Fatalf("%+v: %v after %v", p, err, steps)
			}
		}
	}
}

func TestTracesOfBrokenModelsAreRejected(t *testing.T) {
	t.Parallel()
	for name, p := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			for range 20_000 {
				if _, err := p.walk(random, allFaults); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("no trace was rejected")
		})
	}
}
