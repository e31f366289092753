package conformance_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

// A defect is a way in which a backend breaks one promise, and the clause that must catch it.
type defect[B any] struct {
	name     string
	clause   string
	also     []string // clauses that may notice it as well
	blocks   bool     // the clauses that notice it wait for ever
	alone    bool     // it shows in the number of goroutines
	narrow   bool     // only the clauses that are expected to notice it are tried, as all of them would take too long
	database func() (open func() B)
}

// broken makes a defect of which all stores on a database are the same value.
func broken(name, clause string, store func(m *es.Mem) *faulty) defect[es.Log] {
	return defect[es.Log]{name: name, clause: clause, database: func() func() es.Log {
		log := store(new(es.Mem))
		return func() es.Log { return log }
	}}
}

// brokenApart makes a defect of stores that know nothing of each other but the database.
func brokenApart(name, clause string, store func(m *es.Mem) *faulty) defect[es.Log] {
	return defect[es.Log]{name: name, clause: clause, database: func() func() es.Log {
		m := new(es.Mem)
		return func() es.Log { return store(m) }
	}}
}

func (d defect[B]) noticedBy(clauses ...string) defect[B] { d.also = clauses; return d }
func (d defect[B]) blocking() defect[B]                   { d.blocks = true; return d }
func (d defect[B]) byItself() defect[B]                   { d.alone = true; return d }

func TestEveryDefectOfALogIsCaughtByItsClause(t *testing.T) {
	defects := slices.Concat(
		brokenAppends(), brokenExpectations(), brokenTimes(), brokenRaces(), brokenCommands(), brokenCommandTables(),
		brokenContents(), brokenMemory(), brokenLimits(), brokenReads(), brokenLoops(), brokenLogs(), brokenFilters(), brokenChanged(), brokenWaits())
	catch(t, defects, conformance.LogClauses(), conformance.Clause.TryLog)
}

func TestEveryDefectOfSnapshotsIsCaughtByItsClause(t *testing.T) {
	catch(t, slices.Concat(brokenSnapshots(), brokenSaves(), brokenStreams()), conformance.SnapshotClauses(), conformance.Clause.TrySnapshots)
}

// trying tries a clause on a database.
type trying[B any] func(clause conformance.Clause, ctx context.Context, open func() B, patience time.Duration) []string

// catch tries all clauses on each defect. The one meant for it must find something, no other may unless it is said that it does,
// and every clause must be meant for a defect: one that never finds anything says nothing.
func catch[B any](t *testing.T, defects []defect[B], clauses []conformance.Clause, try trying[B]) {
	t.Helper()
	for _, clause := range clauses {
		if !slices.ContainsFunc(defects, func(d defect[B]) bool { return d.clause == clause.Name }) {
			t.Errorf("no defect shows that the clause %q finds anything", clause.Name)
		}
	}
	// Most of the time is spent waiting, so more of them are tried at once than t.Parallel would.
	at := make(chan struct{}, 12)
	var all sync.WaitGroup
	found := make([]map[string][]string, len(defects))
	for i, d := range defects {
		if d.alone {
			settle()
			found[i] = d.try(t, clauses, try)
		}
	}
	for i, d := range defects {
		if !d.alone {
			all.Go(func() {
				at <- struct{}{}
				found[i] = d.try(t, clauses, try)
				<-at
			})
		}
	}
	all.Wait()
	for i, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			// Some defects show in a race or within a time. On a busy machine they may not, with others beside them.
			for again := 0; again < 3 && len(found[i][d.clause]) == 0; again++ {
				settle()
				found[i] = d.try(t, clauses, try)
			}
			if len(found[i][d.clause]) == 0 {
				t.Errorf("the clause %q did not catch it", d.clause)
			}
			for clause, found := range found[i] {
				if clause == d.clause || slices.Contains(d.also, clause) {
					t.Logf("%s\n%s", clause, strings.Join(found, "\n"))
				} else {
					t.Errorf("the clause %q caught it, which is not meant for it:\n%s", clause, strings.Join(found, "\n"))
				}
			}
		})
	}
}

// settle waits until no goroutine that was left behind before is still on its way out: a clause that counts them would miss as many of its own.
func settle() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for last, still := runtime.NumGoroutine(), 0; still < 100; <-tick.C {
		if n := runtime.NumGoroutine(); n == last {
			still++
		} else {
			last, still = n, 0
		}
	}
}

// try returns what each of the clauses finds. With -short, and under the race detector, which makes this slow,
// it tries those only that are expected to find something.
func (d defect[B]) try(t *testing.T, clauses []conformance.Clause, try trying[B]) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, clause := range clauses {
		patience := 20 * time.Second
		expected := clause.Name == d.clause || slices.Contains(d.also, clause.Name)
		if !expected && (d.narrow || testing.Short() || underRace) {
			continue
		}
		if expected && d.blocks {
			patience = time.Second
			if d.narrow {
				patience = 3 * time.Second // of which a database in a file may need one to begin
			}
		}
		if found := try(clause, t.Context(), d.database(), patience); len(found) > 0 {
			all[clause.Name] = found
		}
	}
	return all
}
