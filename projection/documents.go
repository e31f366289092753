package projection

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/qualify"
)

// Documents is a read model that keeps one row for each key: the state that Evolve makes of the key's events, as JSON, and columns
// to search by. [NewDocuments] returns it. Its Prepare and Handle are those of a [SQLProjection].
//
// A batch takes one statement to load the documents of its records, and one to write them. Both have at most 1000 documents; the
// documents of a batch are in memory. With Delete, those that exist are written by a statement of their own: without arrays, as on SQLite,
// by one for each. Handle decodes as [Each] does: retired and redacted events are skipped, and an unknown one waits.
// After Redact, rebuild the read model, because a document keeps what its events said.
//
// The table has the columns key (text), state (json) and revision (bigint), which each write of a row raises, and one for each Column.
// In SQL of both databases, state->>'Owner' is a field of the state.
//
// Two shards may write the same document if Key is set. Neither loses what the other has written: one of them does its batch again.
// The order of events in such a document is that of each stream, so use one partition if the order of different streams matters.
type Documents[S, E any] struct {
	// Key returns the key of the document that an event changes, and "" for an event that changes none. nil means the id of the stream.
	Key func(r es.Record, event E) string

	// Delete reports whether a document with a state is removed. It is asked after each batch. The next event of its key begins with the
	// zero state. nil keeps all.
	Delete func(state S) bool

	table   string // quoted
	name    string
	codec   *es.Codec[E]
	evolve  func(state S, event E) S
	columns []column[S]
}

// column is a column that a program adds to its documents.
type column[S any] struct {
	name, sqlType string
	value         func(state S) any
}

// NewDocuments returns documents in a table. evolve is that of the aggregate's rules, or one of the read model's own. The state must come
// back from JSON as it was, and must not be a bare number there. A name that no table can have panics.
func NewDocuments[S, E any](table string, codec *es.Codec[E], evolve func(state S, event E) S) *Documents[S, E] {
	return &Documents[S, E]{table: quoteName(table), name: table, codec: codec, evolve: evolve}
}

// Column adds a column with an index, such as "owner", "text". value returns one of the values that [SQL] lists, of the type that the column
// has. A name or type that no column can have, or a name that is taken, panics. A column that is added later needs Rebuild.
func (d *Documents[S, E]) Column(name, sqlType string, value func(state S) any) *Documents[S, E] {
	taken := slices.ContainsFunc(d.columns, func(c column[S]) bool { return strings.EqualFold(c.name, name) })
	switch strings.ToLower(name) {
	case "key", "state", "revision":
		taken = true
	}
	switch {
	case taken:
		panic(fmt.Sprintf("projection: documents %s: column %q is there already: give it another name", d.name, name))
	case !typeName.MatchString(sqlType):
		panic(fmt.Sprintf("projection: documents %s: column %q has type %q: give the name of a type, such as text or numeric(10, 2)", d.name, name, sqlType))
	}
	_ = quoteName(name)
	d.columns = append(d.columns, column[S]{name, sqlType, value})
	return d
}

var typeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_ ]*(\([0-9, ]+\))?$`)

// maxName is the limit of names in Postgres.
const maxName = 63

// quoteName returns a name for SQL.
func quoteName(name string) string {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		panic(fmt.Sprintf("projection: documents: the name %.80q is not UTF-8 of 1 to %d bytes without NUL: give another", name, maxName))
	}
	return qualify.Name(name)
}

// Prepare creates the empty table, for [Projection.Prepare]. It drops a table that exists.
func (d *Documents[S, E]) Prepare(ctx context.Context, tx SQL) error {
	var b strings.Builder
	fmt.Fprintf(&b, `drop table if exists %s; create table %[1]s ("key" text primary key, "state" json not null, "revision" bigint not null`, d.table)
	for _, c := range d.columns {
		fmt.Fprintf(&b, ", %s %s", quoteName(c.name), c.sqlType)
	}
	b.WriteString(")")
	for _, c := range d.columns {
		fmt.Fprintf(&b, "; create index %s on %s (%s)", d.indexName(c.name), d.table, quoteName(c.name))
	}
	if _, err := tx.Exec(ctx, b.String()); err != nil {
		return fmt.Errorf("documents %s: %w", d.name, err)
	}
	return nil
}

func (d *Documents[S, E]) indexName(column string) string {
	name := d.name + "_" + column + "_idx"
	if len(name) > maxName {
		h := fnv.New64a()
		h.Write([]byte(name))
		name = fmt.Sprintf("documents_%x_idx", h.Sum64())
	}
	return quoteName(name)
}

// Get returns the document with a key, and whether there is one.
func (d *Documents[S, E]) Get(ctx context.Context, db Querier, key string) (state S, found bool, err error) {
	var data []byte
	err = db.QueryRow(ctx, `select "state" from `+d.table+` where "key" = $1`, key).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return state, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	if err != nil {
		return state, false, fmt.Errorf("documents %s, key %q: %w", d.name, key, err)
	}
	return state, true, nil
}

// document is a document while a batch changes it.
type document[S any] struct {
	key      string
	state    S
	stored   bool  // it is in the table
	revision int64 // in the table, or one before the first
	data     json.RawMessage
}

// Handle applies records, for [Projection.Handle].
func (d *Documents[S, E]) Handle(ctx context.Context, tx SQL, records []es.Record) error {
	keys := make([]string, 0, len(records))
	events := make(map[string][]E, len(records))
	for _, r := range records {
		event, skip, err := decode(d.codec, r)
		if err != nil {
			return err
		}
		if skip {
			continue
		}
		key := r.Stream.ID
		if d.Key != nil {
			key = d.Key(r, event)
		}
		if key != "" {
			events[key] = append(events[key], event)
		}
	}
	keys = slices.AppendSeq(keys, maps.Keys(events))
	slices.Sort(keys) // in the same order in every shard, so that no two wait for each other
	for part := range slices.Chunk(keys, documentsAtOnce) {
		if err := d.change(ctx, tx, part, events); err != nil {
			return fmt.Errorf("documents %s: %w", d.name, err)
		}
	}
	return nil
}

// change applies the events of some keys.
func (d *Documents[S, E]) change(ctx context.Context, tx SQL, keys []string, events map[string][]E) error {
	loaded, err := d.load(ctx, tx, keys)
	if err != nil {
		return err
	}
	var kept, deleted []*document[S]
	for _, key := range keys {
		doc := loaded[key]
		if doc == nil {
			doc = &document[S]{key: key}
			if d.Delete != nil {
				doc.revision = rand.Int64N(1 << 62) // so that no two documents of a key ever have the same
			}
		}
		for _, e := range events[key] {
			doc.state = d.evolve(doc.state, e)
		}
		if d.Delete != nil && d.Delete(doc.state) {
			if doc.stored {
				deleted = append(deleted, doc)
			}
			continue
		}
		if doc.data, err = json.Marshal(doc.state); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		if c := doc.data[0]; c == '-' || '0' <= c && c <= '9' {
			return fmt.Errorf("%w: key %q: the state %.20s is a bare number, which SQLite would round: use a struct", es.ErrInvalid, key, doc.data)
		}
		kept = append(kept, doc)
	}
	if err := d.write(ctx, tx, kept); err != nil {
		return err
	}
	return d.remove(ctx, tx, deleted)
}

// load returns the documents that exist of some keys.
func (d *Documents[S, E]) load(ctx context.Context, tx SQL, keys []string) (map[string]*document[S], error) {
	query, args := d.loading(tx, keys)
	loaded := make(map[string]*document[S], len(keys))
	var data []byte
	for row, err := range tx.Query(ctx, query, args...) {
		doc := &document[S]{stored: true}
		if err == nil {
			err = row.Scan(&doc.key, &data, &doc.revision)
		}
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, &doc.state); err != nil {
			return nil, fmt.Errorf("key %q: %w", doc.key, err)
		}
		loaded[doc.key] = doc
	}
	return loaded, nil
}
