package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

func TestDiffOfReadModels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "es.db")
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ann", "bob", "\x1b[31m"} {
		if _, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: id}, Events: []es.Record{{Type: "opened"}}}); err != nil {
			t.Fatal(err)
		}
	}
	for version, wrong := range []string{"none", "bob", "bob"} {
		if err := s.Project(t.Context(), sqlite.Projection{
			Name: "balances", Version: version, Once: true, Filter: es.Filter{Kinds: []string{"account"}},
			Prepare: func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, fmt.Sprintf("create table balances_%d (id text primary key, balance integer, owner text)", version))
				return err
			},
			Handle: func(ctx context.Context, tx *sql.Tx, records []es.Record) error {
				for _, r := range records {
					balance := 7
					if r.Stream.ID == wrong {
						balance = 8
					}
					if strings.HasPrefix(r.Stream.ID, "\x1b") && version > 0 {
						continue
					}
					if _, err := tx.ExecContext(ctx, fmt.Sprintf("insert into balances_%d values (?, ?, 'x')", version), r.Stream.ID, balance); err != nil {
						return err
					}
				}
				return nil
			},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	jsonArgs := []string{"-s", path, "diff", "balances", "balances@1", "--old-table", "balances_0", "--new-table", "balances_1", "--key", "id", "--json", "-n", "1"}
	if _, stdout, _ := program(t, jsonArgs...); strings.Count(stdout, "\n") != 1 || !json.Valid([]byte(stdout)) {
		t.Errorf("the JSON of one difference is %q", stdout)
	}
	for _, test := range []struct {
		args []string
		code int
		want string // on either output
	}{
		{[]string{"balances", "balances@1", "--old-table", "balances_0", "--new-table", "balances_1", "--key", "id"}, exitDamage, `id "\x1b[31m"
    only in the old one: balance 7, owner x
    last event: "account/\x1b[31m/1", opened at position 3
id bob
    old: balance 7
    new: balance 8
    last event: account/bob/1, opened at position 2
`},
		{[]string{"balances", "balances@1", "--old-table", "balances_0", "--new-table", "balances_1", "--key", "id", "-n", "1"}, exitDamage, "... and more"},
		{[]string{"balances", "balances@1", "--old-table", "balances_0", "--new-table", "balances_1", "--key", "id", "--json"}, exitDamage, `{"key":{"id":"bob"},"old":{"balance":7,"owner":"x"},"new":{"balance":8,"owner":"x"},"last":"account/bob/1"}`},
		{[]string{"balances@1", "balances@2", "--old-table", "balances_1", "--new-table", "balances_2", "--key", "id"}, exitOK, "alike"},
		{[]string{"balances@1", "balances@9", "--old-table", "balances_1", "--new-table", "balances_2", "--key", "id"}, exitFailed, "balances@9 has never run"},
		{[]string{"balances@1", "balances@2", "--old-table", "balances_1", "--new-table", "lost", "--key", "id"}, exitFailed, "there is no table"},
		{[]string{"balances@1", "balances@2", "--old-table", "balances_1", "--new-table", "balances_2"}, exitUsage, "--key"},
	} {
		code, stdout, stderr := program(t, append([]string{"-s", path, "diff"}, test.args...)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.want) {
			t.Errorf("es diff %v: exit code %d\n%s%s\nwant %d and\n%s", test.args, code, stdout, stderr, test.code, test.want)
		}
	}
}
