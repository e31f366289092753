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

// defect is a way in which a backend breaks one rule, and the clause that must catch it.
type defect[B any] struct {
	name     string
	clause   string
	also     []string // clauses that may catch it too
	blocks   bool     // the clauses that catch it wait until their timeout
	alone    bool     // it is found by the number of goroutines
	narrow   bool     // only the clauses that may catch it are run, because all of them would take too long
	database func() (open func() B)
}

// broken returns a defect of a store that every call of open returns.
func broken(name, clause string, store func(m *es.Mem) *faulty) defect[es.Log] {
	return defect[es.Log]{name: name, clause: clause, database: func() func() es.Log {
		log := store(new(es.Mem))
		return func() es.Log { return log }
	}}
}

// brokenApart returns a defect of stores that share only their database.
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

// tryFunc runs a clause on a database and returns its findings.
type tryFunc[B any] func(clause conformance.Clause, ctx context.Context, open func() B, timeout time.Duration) []string

// catch runs all clauses on each defect. The clause of the defect must find it, and no other may unless the defect lists it.
// Every clause needs at least one defect, which shows that the clause can fail.
// In short mode catch runs a sample of the defects.
func catch[B any](t *testing.T, defects []defect[B], clauses []conformance.Clause, try tryFunc[B]) {
	t.Helper()
	for _, clause := range clauses {
		if !slices.ContainsFunc(defects, func(d defect[B]) bool { return d.clause == clause.Name }) {
			t.Errorf("no defect shows that the clause %q can fail", clause.Name)
		}
	}
	if testing.Short() {
		defects = sample(defects)
	}
	// Most of the time is spent waiting, so more of them run at once than with t.Parallel.
	slots := make(chan struct{}, 12)
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
				slots <- struct{}{}
				found[i] = d.try(t, clauses, try)
				<-slots
			})
		}
	}
	all.Wait()
	for i, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			// Some defects show only in a race or within a time limit. With others running at once on a busy machine they may not.
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
					t.Errorf("the clause %q, which is not listed for this defect, caught it:\n%s", clause, strings.Join(found, "\n"))
				}
			}
		})
	}
}

// sample returns one defect for each clause: the first that does not block until the timeout. It omits the clauses without
// such a defect, which are some of each group.
func sample[B any](defects []defect[B]) []defect[B] {
	sampled := make(map[string]bool)
	var sample []defect[B]
	for _, d := range defects {
		if !d.blocks && !sampled[d.clause] {
			sampled[d.clause] = true
			sample = append(sample, d)
		}
	}
	return sample
}

// settle waits until the number of goroutines is stable, so that goroutines of earlier tests that end later
// do not hide those that a clause must count.
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

// try runs the clauses and returns the findings by clause. In short mode, and under the race detector, which is slow,
// it runs only the clauses that may find something.
func (d defect[B]) try(t *testing.T, clauses []conformance.Clause, try tryFunc[B]) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	for _, clause := range clauses {
		timeout := 20 * time.Second
		expected := clause.Name == d.clause || slices.Contains(d.also, clause.Name)
		if !expected && (d.narrow || testing.Short() || underRace) {
			continue
		}
		if expected && d.blocks {
			timeout = time.Second
			if d.narrow {
				timeout = 3 * time.Second // a database in a file may need one second to open
			}
		}
		if found := try(clause, t.Context(), d.database(), timeout); len(found) > 0 {
			all[clause.Name] = found
		}
	}
	return all
}
