package museum_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/postgres"
)

// The failure: a condition holds unless a record after the position that the decider has read up to matches. Positions are given before the
// commit. The seat is taken at position 1 by a transaction that is still open, another record has position 2, and the decider reads up to 2. After 2
// there is nothing.
//
// Not here: positions are assigned under a lock that is held until the commit, so all records up to the head are there to be read.
func TestPositionBeforeCommit(t *testing.T) {
	ours(t, func(t *testing.T, p place) error {
		log := p.open(t)
		commit := func() { must(t, take(log, "go", "bob", 0)) }
		if p.name == "Postgres" {
			tx, err := connect(t, p.url).Begin(t.Context())
			must(t, err)
			must(t, take(log.(*postgres.Store).In(tx), "go", "bob", 0))
			commit = func() { must(t, tx.Commit(t.Context())) }
		}
		other := make(chan error, 1)
		go func() { other <- take(log, "another", "cem", 0) }()
		if p.name == "Postgres" {
			locked(t, p.url)
		} else {
			must(t, <-other)
		}
		head, err := es.Head(t.Context(), log)
		must(t, err)
		if len(studentsOf(t, log, "go")) > 0 {
			t.Fatal("what is not committed can be read")
		}
		commit()
		if p.name == "Postgres" {
			must(t, <-other)
		}
		if err := take(log, "go", "ann", head); err != nil && !isConflict(err) {
			t.Fatal(err)
		}
		return oneHasTheSeat(studentsOf(t, log, "go"))
	})
	control(t, "positions of a sequence", func(t *testing.T) error {
		b := newTagsTextbook(t)
		bob, err := b.pool.Begin(t.Context())
		must(t, err)
		_, err = bob.Exec(t.Context(), insertUnless, "go", "bob", 0)
		must(t, err)
		_, err = b.pool.Exec(t.Context(), insertTagged, "another", "cem")
		must(t, err)
		head := b.number(t, b.pool, "select max(position) from tagged")
		if len(b.students(t)) > 0 {
			t.Fatal("what is not committed can be read")
		}
		must(t, bob.Commit(t.Context()))
		_, err = b.pool.Exec(t.Context(), insertUnless, "go", "ann", head)
		must(t, err)
		return oneHasTheSeat(b.students(t))
	})
}
