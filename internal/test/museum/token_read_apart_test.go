package museum_test

import (
	"errors"
	"testing"
)

// The failure: a decider reads the records, and by another statement the position up to which it has read. A record that is committed in between is
// before the position and not among what was read, so the condition after the position holds.
//
// Not here: the head is taken before the records are read, and records after it are left out.
func TestTokenReadApart(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		log := p.open(t)
		must(t, take(log, "another", "cem", 0))
		calls := 1
		for at := 0; at <= calls; at++ { // bob comes before each call that ann's decision makes
			course := "course " + string(rune('a'+at))
			l := &intruded{Log: log, at: at, intrude: func() {
				_, err := seatDecisions(log).Execute(t.Context(), seatCommand{course, "bob"})
				must(t, err)
			}}
			_, err := seatDecisions(l).Execute(t.Context(), seatCommand{course, "ann"})
			if at == 0 {
				calls = l.calls
			}
			if at > 0 && !errors.Is(err, errTaken) || at == 0 && err != nil {
				t.Errorf("bob before call %d of %d: %v", at, calls, err)
			}
			if err := oneHasTheSeat(studentsOf(t, log, course)); err != nil {
				return err
			}
		}
		if calls < 3 {
			t.Errorf("a decision makes %d calls: want the head, the records and the append", calls)
		}
		return nil
	})
	control(t, "the position by a second query", func(t *testing.T) error {
		b := newTagsTextbook(t)
		if len(b.students(t)) > 0 {
			t.Fatal("the seat is taken")
		}
		_, err := b.pool.Exec(t.Context(), insertUnless, "go", "bob", 0)
		must(t, err)
		token := b.number(t, b.pool, "select max(position) from tagged")
		_, err = b.pool.Exec(t.Context(), insertUnless, "go", "ann", token)
		must(t, err)
		return oneHasTheSeat(b.students(t))
	})
}
