// Package recorder tests what tests report: it stands in for the *testing.T of a test that is expected to fail.
package recorder

import (
	"fmt"
	"strings"
	"testing"
)

// T stands in for the *testing.T of a test that is expected to fail.
type T struct {
	testing.TB
	Failures []string // the failures reported so far
	cleanups []func()
}

// Helper implements testing.TB.
func (r *T) Helper() {}

// Cleanup keeps f for [Fails] to call.
func (r *T) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// Failed reports whether a failure was reported.
func (r *T) Failed() bool { return len(r.Failures) > 0 }

// Errorf records a failure.
func (r *T) Errorf(format string, args ...any) {
	r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
}

// Fails runs a test that must fail once, with all of the texts in what it says; with no texts it must not fail.
func Fails(t *testing.T, test func(t testing.TB), texts ...string) {
	t.Helper()
	r := &T{TB: t}
	test(r)
	for _, cleanup := range r.cleanups {
		cleanup()
	}
	all := strings.ReplaceAll(strings.Join(r.Failures, "\n"), "\u00a0", " ") // go-cmp varies its spaces, lest somebody relies on them
	if want := min(1, len(texts)); len(r.Failures) != want {
		t.Errorf("%d failures, want %d:\n%s", len(r.Failures), want, all)
	}
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("the failure does not say %q:\n%s", text, all)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Log(all)
	}
}
