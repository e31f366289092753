package commit_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es/internal/commit"
)

// BenchmarkAppend measures the queue alone: its transactions write nothing.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			nothing := inspect(func([]*commit.Request) {})
			q := commit.New(func(context.Context) (commit.Tx, error) { return nothing, nil }, commit.Options{})
			var sent atomic.Int64
			var crowd sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				crowd.Go(func() {
					appends := request("a", 1, 100)
					for sent.Add(1) <= int64(b.N) {
						if _, err := q.Append(b.Context(), appends); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			crowd.Wait()
		})
	}
}
