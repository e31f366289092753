package sqlite

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestSmoke(t *testing.T) {
	for _, path := range []string{":memory:", filepath.Join(t.TempDir(), "a?b#%20.db")} {
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		repo := es.NewRepo(s, "account", account.Rules{}, account.Codec)
		ctx := t.Context()
		if _, err := repo.Execute(ctx, "a", account.Open{Owner: "Ann"}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if _, err := repo.Execute(ctx, "a", account.Deposit{Amount: 5}, es.CommandID(fmt.Sprint(i%50))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		res, err := repo.Execute(ctx, "a", account.Open{})
		t.Log(res, err)
		t.Log(repo.Load(ctx, "a"))
		t.Log(repo.LoadAt(ctx, "a", 9))
		t.Log(es.Head(ctx, s))
		for r, err := range s.All(ctx, 49, es.Filter{Kinds: []string{"account"}}) {
			t.Log(r, err)
		}
		t.Log(s.Backup(ctx, filepath.Join(t.TempDir(), "x.db")))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 128, 1000} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s, err := Open(filepath.Join(b.TempDir(), "a.db"))
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
