package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/loans/application"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/stores"
)

func opened(t *testing.T, where string) projection.Database {
	t.Helper()
	store, err := stores.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// funnelAgrees builds the funnel of a log in a separate database and compares it with counts.
func funnelAgrees(t *testing.T, log es.Log, want map[application.Stage]int) *funnel {
	t.Helper()
	read := opened(t, "mem:")
	if err := buildFunnel(t.Context(), read, projection.FromLog(log), nil); err != nil {
		t.Fatal(err)
	}
	f, err := queryFunnel(t.Context(), read)
	if err != nil {
		t.Fatal(err)
	}
	for stage, n := range want {
		if f.count(stage) != n {
			t.Errorf("%s was reached by %d applications in the funnel, want %d", stage, f.count(stage), n)
		}
	}
	return f
}

func TestTheFunnel(t *testing.T) {
	t.Run("agrees with counting the log", func(t *testing.T) {
		store := new(es.Mem)
		if _, err := replayed(t, store, sample(t)); err != nil {
			t.Fatal(err)
		}
		counted, err := count(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[application.Stage]int)
		for _, h := range counted.applications {
			for _, s := range h.Stages {
				want[s]++
			}
		}
		f := funnelAgrees(t, store, want)
		if len(f.waits) == 0 {
			t.Error("the funnel has no times")
		}
	})
	for name, where := range map[string]string{"in memory": "mem:", "in a file": filepath.Join(t.TempDir(), "loans.db")} {
		t.Run("is printed and drawn from a store "+name, func(t *testing.T) {
			store := opened(t, where)
			if _, err := replayed(t, store, sample(t)); err != nil {
				t.Fatal(err)
			}
			chart := filepath.Join(t.TempDir(), "funnel.svg")
			var out strings.Builder
			for range 2 { // the second time the read model is up to date
				out.Reset()
				if err := showFunnel(t.Context(), store, chart, &out); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(out.String(), "SUBMITTED to DECLINED") || !strings.Contains(out.String(), chart) {
				t.Errorf("got the output\n%s", out.String())
			}
			svg, err := os.ReadFile(chart)
			if err != nil || !bytes.Contains(svg, []byte("</svg>")) || !bytes.Contains(svg, []byte("preaccepted")) {
				t.Errorf("the chart is %.200s, %v", svg, err)
			}
		})
	}
	t.Run("unknown image format is an error", func(t *testing.T) {
		if err := draw(&funnel{}, filepath.Join(t.TempDir(), "funnel.doc")); err == nil {
			t.Error("got no error")
		}
	})
}
