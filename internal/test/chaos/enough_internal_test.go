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
		lasts: 2 * time.Minute, kills: 9, restarts: 9, acknowledged: 2000, records: 4000, relayed: true, published: 4000,
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
		t.Errorf("of a good run it is said: %q", found)
	}
	local := plenty()
	local.relayed, local.published, local.reached = false, 0, nil
	if found := tooLittle(local); len(found) > 0 {
		t.Errorf("of a good run without topics it is said: %q", found)
	}
	for _, test := range []struct {
		name string
		take func(h *happenings)
		says string
	}{
		{"nothing was done", func(h *happenings) { h.faults = nil }, "faults that hit: 0 in 2m0s, and at least 16 must be"},
		{"little was done", func(h *happenings) { h.lasts = 10 * time.Minute }, "faults that hit: 22 in 10m0s"},
		{"a fault never hit", func(h *happenings) { h.faults["kill a process"] = &tally{kindProcesses, 8, 0} }, `"kill a process" was to be done 8 times, and hit 0 times`},
		{"a kind hardly ever hit", func(h *happenings) { h.faults["kill a broker"] = &tally{kindBrokers, 6, 1} }, `faults of kind "brokers": 6 were to be done, and 1 hit`},
		{"a process that stays away", func(h *happenings) { h.restarts = 8 }, "killed 9 times, and started again 8 times"},
		{"nothing was acknowledged", func(h *happenings) { h.acknowledged = 0 }, "acknowledged commands: 0"},
		{"nothing was written", func(h *happenings) { h.records = 48 }, "records: 48 in 2m0s, and at least 240 must be"},
		{"nothing was published", func(h *happenings) { h.published = 0 }, "published records: 0"},
		{"nothing was consumed until all was healed", func(h *happenings) { h.reached["the ledger"] = 3 }, "records that reached the ledger under the nemesis: 3 in 2m0s, and at least 40 must be"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := plenty()
			test.take(&h)
			if said := strings.Join(tooLittle(h), "\n"); !strings.Contains(said, test.says) {
				t.Errorf("it should say %q, and says %q", test.says, said)
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
			t.Error("nothing has reached the model fed from topics, and all is said to grow")
		}
		w.note(reachedFed, 39)
		if !w.since(began) || w.enough(2*time.Minute) {
			t.Error("39 records are not 40, but they are more than before")
		}
		time.Sleep(time.Second)
		moment := time.Now()
		time.Sleep(time.Second)
		w.note(reachedFed, 41)
		w.note(reachedLedger, 45)
		w.note(reachedStatement, 50) // built anew
		if w.since(moment) || !w.enough(2*time.Minute) {
			t.Error("the statement stands still")
		}
		w.forgive()
		if !w.since(moment) {
			t.Error("after a calm all begin again")
		}
	})
}
