package estest_test

import (
	"fmt"
	"strings"
	"testing"
)

// A recorder stands in for the *testing.T of a test that is expected to fail.
type recorder struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool     { return len(r.failures) > 0 }
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// fails runs a test that must fail once, with all of the texts in what it says; with no texts it must not fail.
func fails(t *testing.T, test func(t testing.TB), texts ...string) {
	t.Helper()
	r := &recorder{TB: t}
	test(r)
	for _, cleanup := range r.cleanups {
		cleanup()
	}
	all := strings.ReplaceAll(strings.Join(r.failures, "\n"), "\u00a0", " ") // go-cmp varies its spaces, lest somebody relies on them
	if want := min(1, len(texts)); len(r.failures) != want {
		t.Errorf("%d failures, want %d:\n%s", len(r.failures), want, all)
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
