// Package recorder replaces the *testing.T of a test that is expected to fail, to test what it reports.
package recorder

import (
	"fmt"
	"strings"
	"testing"
)

// T is a testing.TB that records failures.
type T struct {
	testing.TB
	Failures []string // the failures reported so far
	cleanups []func()
}

// Helper implements testing.TB.
func (r *T) Helper() {}

// Cleanup implements testing.TB. [Fails] calls f.
func (r *T) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// Failed reports whether a failure was recorded.
func (r *T) Failed() bool { return len(r.Failures) > 0 }

// Errorf records a failure.
func (r *T) Errorf(format string, args ...any) {
	r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
}

// Fails runs a test that must fail exactly once, with a message that contains all texts. Without texts the test must not fail.
func Fails(t *testing.T, test func(t testing.TB), texts ...string) {
	t.Helper()
	r := &T{TB: t}
	test(r)
	for _, cleanup := range r.cleanups {
		cleanup()
	}
	all := strings.ReplaceAll(strings.Join(r.Failures, "\n"), "\u00a0", " ") // go-cmp varies its spaces so that tests cannot depend on them
	if want := min(1, len(texts)); len(r.Failures) != want {
		t.Errorf("%d failures, want %d:\n%s", len(r.Failures), want, all)
	}
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("the failure does not contain %q:\n%s", text, all)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Log(all)
	}
}
