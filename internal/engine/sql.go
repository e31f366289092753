package engine

import (
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// SQL is an [Engine] on a SQL database.
type SQL[Tx any] struct {
	*Engine[Tx]
	ledger *sqlLedger[Tx]
}

// NewSQL returns an engine on a SQL database.
func NewSQL[Tx any](db Database[Tx]) *SQL[Tx] {
	l := newSQLLedger(db)
	return &SQL[Tx]{New(l), l}
}

// SQLInline is an [Inline] on a SQL database. It returns its statements to the backend, which can send them together with its own.
type SQLInline[Tx any] struct {
	*Inline[Tx]
	ledger *sqlLedger[Tx]
}

// Inline prepares to run projections inside appends.
func (s *SQL[Tx]) Inline(projections []projection.Projection[Tx], page Pager[Tx]) (*SQLInline[Tx], error) {
	x, err := s.Engine.Inline(projections, page)
	if err != nil {
		return nil, err
	}
	return &SQLInline[Tx]{x, s.ledger}, nil
}

// Statement is one that a backend may send together with others.
type Statement struct {
	SQL  string
	Args []any // of types string, int64 and bool
}

// States returns a query for each projection. It locks the row and returns the fields Cursor, Rebuild, Filter and PastEnd of a State, or no
// row.
func (x *SQLInline[Tx]) States() []Statement {
	list := make([]Statement, len(x.tasks))
	for i, t := range x.tasks {
		list[i] = Statement{x.ledger.stmts.inline, t.key.with()}
	}
	return list
}

// Moves returns a statement for each projection. It moves the checkpoint from the cursor in states to the last of records.
// Each must change one row.
func (x *SQLInline[Tx]) Moves(states []State, records []es.Record) []Statement {
	list := make([]Statement, len(x.tasks))
	for i, t := range x.tasks {
		list[i] = x.ledger.moveInline(t.key, states[i].Cursor, Target{projection.Cursor(records[len(records)-1].Position), t.lastTime(records), true})
	}
	return list
}
