package model_test

import (
	"flag"
	"iter"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/thalo-go/es/internal/test/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers{m}) }

// servers stops the servers before goleak checks for leaks.
type servers struct{ m *testing.M }

func (s servers) Run() int { return testserver.Run(s.m) }

// checks sets the number of rapid's runs, unless the command line does.
func checks(t *testing.T, few, many string) {
	t.Helper()
	if testing.Short() {
		many = few
	}
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		must(t, f.Value.Set(many))
		t.Cleanup(func() { must(t, f.Value.Set(f.DefValue)) })
	}
}

// repeatedly runs rapid with one check each while there is time: some seconds, and fewer in CI. If the command line
// sets the number of checks, there is one run with that number.
func repeatedly(t *testing.T) iter.Seq[int] {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	said := f.Value.String() != f.DefValue
	checks(t, "1", "1")
	budget, least := 10*time.Second, 3
	if inCI, err := strconv.ParseBool(os.Getenv("CI")); err == nil && inCI {
		budget, least = 3*time.Second, 2
	}
	if testing.Short() {
		budget, least = time.Second, 1
	}
	return func(yield func(int) bool) {
		began, n := time.Now(), 0
		for again := true; again && (n < least || time.Since(began) < budget); n++ {
			again = yield(n) && !said && !t.Failed()
		}
		t.Logf("%d runs in %v", n, time.Since(began).Round(time.Millisecond))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
