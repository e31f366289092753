package memory

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/part"
)

// Timers in chunks are the same as a sorted list without duplicates, and what was read before a change stays as it was.
func TestTimersAreASortedList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var chunked timers
		var list []engine.Timer
		timer := func(n int) engine.Timer {
			return engine.Timer{Due: int64(1 + n%90), Position: es.Position(n), Stream: es.Stream{Kind: "k", ID: string(rune('a' + n%3))}, Version: 1}
		}
		draw := rapid.Map(rapid.IntRange(1, 9000), timer)
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			before, was := chunked, slices.Clone(list)
			if rapid.Bool().Draw(t, "adds") {
				random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
				added := make([]engine.Timer, rapid.IntRange(1, 3000).Draw(t, "added"))
				for i := range added {
					added[i] = timer(1 + random.IntN(9000))
				}
				chunked = chunked.with(added)
				list = append(list, added...)
				slices.SortFunc(list, engine.CompareTimers)
				list = slices.Compact(list)
			} else {
				first, last, p := draw.Draw(t, "first"), draw.Draw(t, "last"), part.Part{I: 1, Of: 2}
				chunked = chunked.without(first, last, func(t engine.Timer) bool { return isOf(t, p) })
				list = slices.DeleteFunc(list, func(t engine.Timer) bool {
					return engine.CompareTimers(t, first) >= 0 && engine.CompareTimers(t, last) <= 0 && isOf(t, p)
				})
			}
			if got := slices.Collect(before.from(engine.Timer{})); !slices.Equal(got, was) {
				t.Fatal("a change has changed the timers before it")
			}
		}
		from := draw.Draw(t, "from")
		i, _ := slices.BinarySearchFunc(list, from, engine.CompareTimers)
		if got := slices.Collect(chunked.from(from)); !slices.Equal(got, list[i:]) {
			t.Fatalf("%d timers are there, want %d", len(got), len(list)-i)
		}
		for _, c := range chunked {
			if len(c) == 0 || len(c) > chunk {
				t.Fatalf("a chunk has %d timers", len(c))
			}
		}
	})
}
