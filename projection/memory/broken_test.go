package memory_test

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/projection/memory"
)

// defectVariable names the environment variable with the defect that TestProjections gives the ledger.
const defectVariable = "ES_TEST_LEDGER_DEFECT"

// faulty is a ledger with a defect. A nil function has none.
type faulty struct {
	memory.Ledger
	onTransact func(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *memory.Tx) error) error
	onMove     func(ctx context.Context, tx *memory.Tx, k engine.Key, s engine.Shard, to engine.Target) (bool, error)
	onUnpark   func(ctx context.Context, tx *memory.Tx, k engine.Key, r es.Record) error
	onBlocked  func(ctx context.Context, k engine.Key, shard string) ([]es.Stream, error)
	onRestart  func(ctx context.Context, tx *memory.Tx, k engine.Key, h engine.Header) error
	onReplace  func(ctx context.Context, tx *memory.Tx, k engine.Key, names []string, like engine.Shard, shardOf func(es.Stream) string) error
}

func (f *faulty) Transact(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *memory.Tx) error) error {
	if f.onTransact != nil {
		return f.onTransact(ctx, o, work)
	}
	return f.Ledger.Transact(ctx, o, work)
}

func (f *faulty) Move(ctx context.Context, tx *memory.Tx, k engine.Key, s engine.Shard, to engine.Target) (bool, error) {
	if f.onMove != nil {
		return f.onMove(ctx, tx, k, s, to)
	}
	return f.Ledger.Move(ctx, tx, k, s, to)
}

func (f *faulty) Unpark(ctx context.Context, tx *memory.Tx, k engine.Key, r es.Record) error {
	if f.onUnpark != nil {
		return f.onUnpark(ctx, tx, k, r)
	}
	return f.Ledger.Unpark(ctx, tx, k, r)
}

func (f *faulty) Blocked(ctx context.Context, k engine.Key, shard string) ([]es.Stream, error) {
	if f.onBlocked != nil {
		return f.onBlocked(ctx, k, shard)
	}
	return f.Ledger.Blocked(ctx, k, shard)
}

func (f *faulty) Restart(ctx context.Context, tx *memory.Tx, k engine.Key, h engine.Header) error {
	if f.onRestart != nil {
		return f.onRestart(ctx, tx, k, h)
	}
	return f.Ledger.Restart(ctx, tx, k, h)
}

func (f *faulty) Replace(ctx context.Context, tx *memory.Tx, k engine.Key, names []string, like engine.Shard, shardOf func(es.Stream) string) error {
	if f.onReplace != nil {
		return f.onReplace(ctx, tx, k, names, like, shardOf)
	}
	return f.Ledger.Replace(ctx, tx, k, names, like, shardOf)
}

// moveAnyway moves a checkpoint whatever its cursor and claim are.
func moveAnyway(l memory.Ledger) func(ctx context.Context, tx *memory.Tx, k engine.Key, s engine.Shard, to engine.Target) (bool, error) {
	return func(ctx context.Context, tx *memory.Tx, k engine.Key, s engine.Shard, to engine.Target) (bool, error) {
		shards, _, err := l.IdleShards(ctx, tx, k)
		for _, there := range shards {
			if there.Name == s.Name {
				s.Cursor, s.Claim = there.Cursor, there.Claim
			}
		}
		if err != nil {
			return false, err
		}
		return l.Move(ctx, tx, k, s, to)
	}
}

// keepChanges lets a rollback undo nothing of the read model.
func keepChanges(f *faulty) {
	f.onTransact = func(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *memory.Tx) error) error {
		return f.Ledger.Transact(ctx, o, func(ctx context.Context, tx *memory.Tx) error {
			defer tx.ForgetUndo()
			return work(ctx, tx)
		})
	}
}

// commitFailures commits transactions whose work fails.
func commitFailures(f *faulty) {
	f.onTransact = func(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *memory.Tx) error) (failed error) {
		err := f.Ledger.Transact(ctx, o, func(ctx context.Context, tx *memory.Tx) error {
			failed = work(ctx, tx)
			return nil
		})
		return cmp.Or(failed, err)
	}
}

// startOver lets new partitions start at the beginning.
func startOver(f *faulty) {
	f.onReplace = func(ctx context.Context, tx *memory.Tx, k engine.Key, names []string, _ engine.Shard, shardOf func(es.Stream) string) error {
		return f.Ledger.Replace(ctx, tx, k, names, engine.Shard{}, shardOf)
	}
}

// defect is a defect of a ledger, and the clause of the suite that finds it.
type defect struct {
	name, clause string
	breakIt      func(f *faulty)
}

// defects are ledgers that the suite must find. Those that make a clause wait for what does not happen are in TestAFaultIsNoticed,
// where waiting takes no time.
var defects = []defect{
	{"a rollback undoes nothing", "failed handler leaves no writes", keepChanges},
	{"a transaction that fails is committed", "failed handler is retried", commitFailures},
	{"other partitions start at the beginning", "partitions can be changed while it runs", startOver},
}

// waitingDefects are those that stop a projection or are shown by a fault only.
var waitingDefects = []struct {
	name    string
	fault   fault
	breakIt func(f *faulty)
}{
	{"the checkpoint moves without compare-and-set", replaced, func(f *faulty) { f.onMove = moveAnyway(f.Ledger) }},
	{"a rollback undoes nothing", failBefore, keepChanges},
	{"a transaction that fails is committed", failBefore, commitFailures},
	{"the request is lost with the first parked record", failBefore, func(f *faulty) {
		f.onUnpark = func(ctx context.Context, tx *memory.Tx, k engine.Key, r es.Record) error {
			err := f.Ledger.Unpark(ctx, tx, k, r)
			tx.ForgetRequests(k)
			return err
		}
	}},
	{"a worker does not know the parked streams", replaced, func(f *faulty) {
		f.onBlocked = func(context.Context, engine.Key, string) ([]es.Stream, error) { return nil, nil }
	}},
	{"a rebuild keeps the shards", failBefore, func(f *faulty) {
		f.onRestart = func(context.Context, *memory.Tx, engine.Key, engine.Header) error { return nil }
	}},
	{"other partitions start at the beginning", failBefore, startOver},
}

// defective returns the ledger with the defect that the environment names, if it names one.
func defective(l memory.Ledger) memory.Ledger {
	name := os.Getenv(defectVariable)
	if name == "" {
		return l
	}
	f := &faulty{Ledger: l}
	i := slices.IndexFunc(defects, func(d defect) bool { return d.name == name })
	defects[i].breakIt(f)
	return f
}

// TestEveryDefectIsCaughtByItsClause runs a clause of the suite in a process of its own, on a ledger with a defect that it must find.
func TestEveryDefectIsCaughtByItsClause(t *testing.T) {
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			name := strings.ReplaceAll(d.clause, " ", "_")
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestProjections$/^"+regexp.QuoteMeta(name)+"$")
			child.Env = append(os.Environ(), defectVariable+"="+d.name)
			output, err := child.CombinedOutput()
			if !strings.Contains(string(output), "--- FAIL: TestProjections/"+name) {
				t.Errorf("the clause %q did not fail: %v\n%s", d.clause, err, output)
			}
		})
	}
}
