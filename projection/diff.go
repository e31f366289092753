package projection

import "github.com/thalo-go/es"

// Table is a read model to compare by Diff of the stores: a table that one version of a projection writes.
type Table struct {
	Projection string
	Version    int
	Table      string   // its name, which may have a schema before a dot on Postgres
	Key        []string // the columns that tell rows apart, the same in both tables
}

// Difference is a row that two read models do not have alike. Columns that only one of the tables has are not compared. The values are as
// the driver returns them.
type Difference struct {
	Key map[string]any
	Old map[string]any // the other columns; nil if the old table does not have the row
	New map[string]any // nil if the new table does not have it

	// Last is the last event, without Data, of the stream whose id is the key. It is zero unless there is one column of key and the
	// filter of the new projection has one kind.
	Last es.Record
}
