package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

func TestTimers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "es.db")
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if _, err := s.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "order", ID: id}, Events: []es.Record{{Type: "placed"}}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.React(ctx, projection.Reaction{Name: "expire", From: projection.Beginning(),
			Due: func(r es.Record) (time.Time, error) {
				return time.Date(2199, 1, int(r.Position), 0, 0, 0, 0, time.UTC), nil
			},
			Handle: func(context.Context, es.Record) error { return nil }})
	}()
	eventually.True(t, "the timers are enrolled", func() bool {
		all, err := s.Status(t.Context())
		return err == nil && len(all) == 1 && all[0].Waiting == 3
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		want []string
		args []string
	}{
		{[]string{"2199-01-01", "order/a/1", "order/c/1"}, []string{"timers", "expire"}},
		{[]string{"order/a/1", "... and more"}, []string{"timers", "expire", "-n", "1"}},
		{[]string{`{"name":"expire","id":"order/a/1","position":1,"due":"2199-01-01T00:00:00Z"}`}, []string{"timers", "expire", "-json"}},
		{[]string{"3 timers wait, the earliest is due at 2199-01-01"}, []string{"status"}},
		{[]string{`"waiting":3,"nextDue":"2199-01-01T00:00:00Z"`}, []string{"status", "-json"}},
	} {
		code, stdout, stderr := program(t, append([]string{"-s", path}, test.args...)...)
		for _, want := range test.want {
			if code != exitOK || !strings.Contains(stdout, want) {
				t.Errorf("es %q: exit code %d, want %q in:\n%s\n%s", test.args, code, want, stdout, stderr)
			}
		}
	}
	if code, _, stderr := program(t, "-s", path, "timers", "other"); code == exitOK || !strings.Contains(stderr, "there is no reaction other") {
		t.Errorf("es timers other: exit code %d, %s; want it refused", code, stderr)
	}
	if got := dueLine(2, time.Unix(0, 0), time.Unix(90, 0)); !strings.HasSuffix(got, "overdue by 1m30s") {
		t.Errorf("the line of an overdue timer is %q", got)
	}
}
