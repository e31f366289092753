package model_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/thalo-go/es/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers{m}) }

// servers stops the servers before goleak looks for what was left behind.
type servers struct{ m *testing.M }

func (s servers) Run() int { return testserver.Run(s.m) }

// checks sets how many runs rapid makes, unless the command line says it.
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
