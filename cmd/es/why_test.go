package main

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

func TestWhy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "es.db")
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "ann"}, Events: []es.Record{{Type: "opened"}}}); err != nil {
		t.Fatal(err)
	}
	full := errors.New("\x1b[31mfull")
	if err := s.Project(t.Context(), sqlite.Projection{Name: "balances", Version: 2, Once: true, Retries: -1, Handle: func(context.Context, *sql.Tx, []es.Record) error { return full }}); !errors.Is(err, full) {
		t.Fatal(err)
	}
	for name, held := range map[string]time.Duration{"relay/bank/relay": time.Hour, "relay/old/relay": time.Microsecond} {
		if _, err := s.AcquireLease(t.Context(), name, "host/1", held, "7 behind, last error: broker away"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"why", "balances@2"}, []string{"balances@2 0/1: ", `stopped before account/ann/1, a \"opened\" at position 1: `, `\x1b[31mfull`, "    since 2", "    what to do: remove the cause"}},
		{[]string{"why", "balances@2", "--json"}, []string{`{"name":"balances@2","cause":{"code":"stopped","shard":"0/1","message":"stopped before`, `"remedy":"remove the cause`}},
		{[]string{"why", "relay/bank/relay"}, []string{"relay/bank/relay: its holder host/1 says: 7 behind, last error: broker away"}},
		{[]string{"why", "relay/old/relay"}, []string{"holder host/1 has died", "what to do: start"}},
	} {
		code, stdout, stderr := program(t, append([]string{"-s", path}, test.args...)...)
		for _, want := range test.want {
			if code != exitOK || !strings.Contains(stdout, want) {
				t.Errorf("es %v: exit code %d, %s\n%s\nwant %q in it", test.args, code, stderr, stdout, want)
			}
		}
		if strings.Contains(stdout, "\x1b") {
			t.Errorf("es %v writes an escape: %q", test.args, stdout)
		}
	}
	if code, _, stderr := program(t, "-s", path, "why", "never"); code != exitFailed || !strings.Contains(stderr, "never") {
		t.Errorf("es why never: exit code %d, %s", code, stderr)
	}
}
