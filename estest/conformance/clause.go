package conformance

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// clause is one rule of an interface and the test for it.
type clause struct {
	name string // a short sentence, the name of the subtest
	why  string // the rule and the consequence of breaking it
	test func(*trial)
}

// trial runs one clause on one fresh database. It records findings itself and does not report them to a *testing.T,
// so that the tests of this package can run clauses on stores that are known to be broken.
type trial struct {
	// Each call opens another store on the same database. Only the functions that the suite needs are set.
	store       func() es.Store
	log         func() es.Log
	snapshots   func() es.Snapshots
	leases      func() es.Leases
	checkpoints func() es.Checkpoints
	side        func() ReadSide[any]
	lists       Lists[any]
	redactable  func() Redactable
	source      func() projection.Source

	ctx     context.Context // ends after the timeout
	timeout time.Duration   // how long a clause may take before the store counts as blocked
	many    int             // number of records in a long stream
	large   bool            // whether to test the limits on bytes, which writes 80 MiB

	mu       sync.Mutex
	findings []string
	runs     []*run
}

// try runs the clause and returns its findings. A store that blocks is a finding too: if a call does not return after
// its context has ended, try leaves its goroutine behind.
func (c clause) try(ctx context.Context, t *trial) []string {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	t.ctx = ctx
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.recover()
		c.test(t)
	}()
	select {
	case <-done:
	case <-time.After(t.timeout + t.timeout/2):
		t.Errorf("a call is blocked: it has not returned for %v, nor when its context ended", t.timeout)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.findings)
}

// report runs the clause and reports its findings, with the rule that they break, to t.
func (c clause) report(t testing.TB, trial *trial) {
	t.Helper()
	if findings := c.try(t.Context(), trial); len(findings) > 0 {
		t.Errorf("%s\n\nThe rule: %s", strings.Join(findings, "\n"), c.why)
	}
}

// recover records a panic as a finding, so that the other clauses still run.
func (t *trial) recover() {
	if v := recover(); v != nil { //nolint:revive // this is deferred, under its own name
		t.Errorf("panic: %v\n%s", v, debug.Stack())
	}
}

// Errorf records a finding.
func (t *trial) Errorf(format string, args ...any) {
	text := fmt.Sprintf("%s: %s", where(), fmt.Sprintf(format, args...))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.findings = append(t.findings, text)
}

// Fatalf records a finding and ends the calling goroutine.
func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// where returns file and line of the innermost frame that is not in a file of helpers.
func where() string {
	helpers := []string{"clause.go", "trial.go", "run.go"}
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	for {
		frame, more := frames.Next()
		if file := filepath.Base(frame.File); !slices.Contains(helpers, file) && !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", file, frame.Line)
		}
		if !more {
			return "clause.go"
		}
	}
}
