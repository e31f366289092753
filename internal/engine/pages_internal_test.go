package engine

import (
	"context"
	"slices"
	"testing"
)

// The iterators of Parked and Timers can be used again, and then begin anew.
func TestPages(t *testing.T) {
	const limit = 3
	for n := range 3*limit + 1 {
		var want []int
		for i := range n {
			want = append(want, i)
		}
		query := func(_ context.Context, after, limit int) ([]int, error) {
			return want[after+1 : min(after+1+limit, n)], nil
		}
		seq := pages(t.Context(), "numbers", -1, limit, query)
		for range 2 {
			var got []int
			for i, err := range seq {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, i)
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages returned %v, not %v", got, want)
			}
		}
	}
}
