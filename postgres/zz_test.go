package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
)

func devDB(t testing.TB) string {
	base := os.Getenv("DEVPG")
	if base == "" {
		base = "postgres://postgres@127.0.0.1:5518/"
	}
	conn, err := pgx.Connect(context.Background(), base+"postgres")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("dev%d", rand.Int64())
	if _, err := conn.Exec(context.Background(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Exec(context.Background(), "drop database "+name+" with (force)")
		conn.Close(context.Background())
	})
	return base + name
}

func TestLog(t *testing.T) {
	estest.TestLog(t, func(t *testing.T) func() es.Log {
		url := devDB(t)
		return func() es.Log {
			s, err := Open(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 128, 1000} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s, err := Open(b.Context(), devDB(b))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var n atomic.Int64
			var wg sync.WaitGroup
			data := make([]byte, 120)
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					stream := es.Stream{"account", fmt.Sprint(w)}
					for v := es.Version(0); n.Add(1) <= int64(b.N); v++ {
						if _, err := s.Append(b.Context(), es.Append{Stream: stream, Expected: v, Events: []es.Record{{Type: "deposited", Data: data}}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
