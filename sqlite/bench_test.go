package sqlite_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
)

// BenchmarkAppend measures durable appends of single events of 120 bytes, each writer on a stream of its own.
// Package bench compares the numbers with other ways of writing.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 128, 1000} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := open(b, file(b))
			data := make([]byte, 120)
			var sent atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					for v := es.Version(0); sent.Add(1) <= int64(b.N); v++ {
						a := es.Append{Stream: stream(fmt.Sprint(w)), Expected: v, Events: []es.Record{{Type: "deposited", Data: data}}}
						if _, err := s.Append(b.Context(), a); err != nil {
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

// BenchmarkRead measures reading a stream of 1,000 events.
func BenchmarkRead(b *testing.B) {
	s := open(b, file(b))
	add(b, s, at("a", 0, make([]string, 1000)...))
	for b.Loop() {
		for _, err := range s.Read(b.Context(), stream("a"), 0) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
