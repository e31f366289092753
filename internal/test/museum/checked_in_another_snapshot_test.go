package museum_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/thalo-go/es"
)

// The failure: a condition is checked by one statement, or by a part of the statement, and the record is inserted by another. Two writers check at the same
// time, in snapshots that do not have the record of the other, and both insert.
//
// Not here: the check runs under the lock that is held until the commit.
func TestCheckedInAnotherSnapshot(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		stores := []es.Log{p.open(t), p.open(t)}
		for round := range 4 {
			course := fmt.Sprint("course ", round)
			var all sync.WaitGroup
			for n := range 16 {
				all.Go(func() {
					if err := take(stores[n%2], course, fmt.Sprint("student ", n), 0); err != nil && !isConflict(err) {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if err := oneHasTheSeat(studentsOf(t, stores[0], course)); err != nil {
				return err
			}
		}
		return nil
	})
	control(t, "insert where not exists, without a lock", func(t *testing.T) error {
		b := newTagsTextbook(t)
		ann, err := b.pool.Begin(t.Context())
		must(t, err)
		_, err = ann.Exec(t.Context(), insertUnless, "go", "ann", 0)
		must(t, err)
		_, err = b.pool.Exec(t.Context(), insertUnless, "go", "bob", 0)
		must(t, err)
		must(t, ann.Commit(t.Context()))
		return oneHasTheSeat(b.students(t))
	})
}
