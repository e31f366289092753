package chaos

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// plenty is a run of two minutes that shows something.
func plenty() happenings {
	return happenings{
		lasts: 2 * time.Minute, kills: 9, restarts: 9, acknowledged: 2000, records: 4000, timers: 400, relayed: true, published: 4000,
		reached: map[string]int{"the ledger": 2000, "the model": 2000},
		faults: map[string]*tally{
			"kill a process":  {kindProcesses, 10, 9},
			"pause a process": {kindProcesses, 8, 5},
			"kill a broker":   {kindBrokers, 6, 3},
			"kill postgres":   {kindServer, 1, 0},
			"delay answers":   {kindNetwork, 5, 5},
		},
	}
}

func TestARunMustHaveSeenSomething(t *testing.T) {
	if found := tooLittle(plenty()); len(found) > 0 {
		t.Errorf("a good run is rejected: %q", found)
	}
	local := plenty()
	local.relayed, local.published, local.reached = false, 0, nil
	if found := tooLittle(local); len(found) > 0 {
		t.Errorf("a good run without topics is rejected: %q", found)
	}
	for _, test := range []struct {
		name string
		take func(h *happenings)
		says string
	}{
		{"no faults", func(h *happenings) { h.faults = nil }, "effective faults: 0 in 2m0s, want at least 16"},
		{"few faults", func(h *happenings) { h.lasts = 10 * time.Minute }, "effective faults: 22 in 10m0s"},
		{"a fault has no effect", func(h *happenings) { h.faults["kill a process"] = &tally{kindProcesses, 8, 0} }, `"kill a process" was drawn 8 times and had an effect 0 times`},
		{"a kind rarely has an effect", func(h *happenings) { h.faults["kill a broker"] = &tally{kindBrokers, 6, 1} }, `faults of kind "brokers": 6 were drawn and 1 had an effect`},
		{"a process is not restarted", func(h *happenings) { h.restarts = 8 }, "killed 9 times but restarted 8 times"},
		{"no timer has had its effect", func(h *happenings) { h.timers = 0 }, "effects of timers: 0 in 2m0s, want at least 20"},
		{"the other release never ran", func(h *happenings) { h.beside = true }, "starts of the other release: 0"},
		{"nothing was acknowledged", func(h *happenings) { h.acknowledged = 0 }, "acknowledged commands: 0"},
		{"nothing was written", func(h *happenings) { h.records = 48 }, "records: 48 in 2m0s, want at least 240"},
		{"nothing was published", func(h *happenings) { h.published = 0 }, "published records: 0"},
		{"nothing was consumed during fault injection", func(h *happenings) { h.reached["the ledger"] = 3 }, "records that reached the ledger during fault injection: 3 in 2m0s, want at least 40"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := plenty()
			test.take(&h)
			if said := strings.Join(tooLittle(h), "\n"); !strings.Contains(said, test.says) {
				t.Errorf("want %q, got %q", test.says, said)
			}
		})
	}
}

func TestAWatchNoticesWhatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(true)
		began := time.Now()
		time.Sleep(time.Second)
		w.note(reachedStatement, 50)
		w.note(reachedLedger, 40)
		if w.since(began) || w.enough(2*time.Minute) {
			t.Error("since is true although nothing has reached the model built from topics")
		}
		w.note(reachedFed, 39)
		if !w.since(began) || w.enough(2*time.Minute) {
			t.Error("enough or since is wrong after 39 of 40 records")
		}
		time.Sleep(time.Second)
		moment := time.Now()
		time.Sleep(time.Second)
		w.note(reachedFed, 41)
		w.note(reachedLedger, 45)
		w.note(reachedStatement, 50) // built anew
		if w.since(moment) || !w.enough(2*time.Minute) {
			t.Error("since is true although the statement does not grow")
		}
		w.reset()
		if !w.since(moment) {
			t.Error("since is false after reset")
		}
	})
}
