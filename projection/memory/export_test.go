package memory

import (
	"github.com/thalo-go/es/internal/engine"
)

// Another returns another store on the same rows, as another process would have it.
func (s *Store) Another() *Store { return open(s.Mem, s.ledger.tables) }

// Ledger is the ledger of a store, for tests to wrap.
type Ledger = engine.Ledger[*Tx]

// Wrapped returns another store on the same rows, with a changed ledger.
func (s *Store) Wrapped(wrap func(l Ledger) Ledger) *Store {
	another := s.Another()
	another.Projections = engine.New(wrap(another.ledger))
	return another
}

// ForgetUndo makes a transaction keep its changes of read models even if it is rolled back.
func (t *Tx) ForgetUndo() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.undo = nil
}

// ForgetRequests removes the requests for parked records of a projection.
func (t *Tx) ForgetRequests(k engine.Key) {
	if r := t.rows[k]; r != nil {
		for _, old := range r.parked {
			r.set(old, func(p *parked) { p.request = "" })
		}
	}
}
