package bench_test

import (
	"fmt"
	"testing"

	"github.com/thalo-go/es/bench/internal/work"
)

// BenchmarkAppend is writers that append one event at a time.
func BenchmarkAppend(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		callers(b, "writers", []int{1, 16, 128, 1000}, func(b *testing.B, writers int) {
			appends(b, s, writers, 1, payload)
		})
	})
}

// BenchmarkAppendBatch is 16 writers that append many events at a time. An operation is one append.
func BenchmarkAppendBatch(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		for _, batch := range []int{10, 100} {
			b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) { appends(b, s, 16, batch, payload) })
		}
	})
}

// BenchmarkAppendPayload is 128 writers that append one event at a time, of some bytes.
func BenchmarkAppendPayload(b *testing.B) {
	eachStore(b, func(b *testing.B, s backend) {
		for _, bytes := range []int{100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("bytes=%d", bytes), func(b *testing.B) { appends(b, s, 128, 1, bytes) })
		}
	})
}

func appends(b *testing.B, s backend, writers, batch, bytes int) {
	store, plain := s.open(b)
	ours := work.Appends("Append", work.To(store), writers, batch, bytes)
	if plain == nil {
		compare(b, ours)
		return
	}
	theirs := work.Appends("one commit each", plain.Append, writers, batch, bytes)
	compare(b, ours, theirs)
}
