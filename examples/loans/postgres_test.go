package main

import (
	"os"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/test/testserver"
)

func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }

func TestTheFunnelOnPostgres(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	store := opened(t, server.Database(t))
	if _, err := replayed(t, store, sample(t)); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := showFunnel(t.Context(), store, "", &out); err != nil {
		t.Fatal(err)
	}
	beside := funnelAgrees(t, store, nil)
	var mem strings.Builder
	r := &report{w: &mem}
	r.funnel(beside)
	if out.String() != mem.String() {
		t.Errorf("the funnel on Postgres is\n%s\nand on SQLite\n%s", out.String(), mem.String())
	}
}
