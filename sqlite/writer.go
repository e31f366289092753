package sqlite

import (
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
)

// writer caches the head of the log and of the streams last written, and has the prepared statements of the connection of the group commit.
// Only the owner of the open transaction may use it.
//
// The cache is valid while SQLite's data_version is unchanged, which means that no other connection has changed the database.
// The writer compares it within the transaction, so that no other process can change the database afterwards.
type writer struct {
	conn        *sqlite3.SQLiteConn // of the statements
	statements  map[string]driver.Stmt
	dataVersion int64
	known       bool // head, time and heads are valid as of dataVersion
	history     *history
	turns       *turns
	view        view // of the history, as of dataVersion
	head        es.Position
	time        int64 // of the record at head, in microseconds since 1970
	heads       *simplelru.LRU[es.Stream, es.Version]
	kinds       taggedKinds // nil if unknown
	hash        func(tag string) int64
	args        []driver.NamedValue
}

const knownHeads = 1 << 16 // streams whose heads are cached

const (
	selectDataVersion = "pragma data_version"
	selectLast        = "select position, time, kind, id, version from es_events order by position desc limit 1"
	selectStreamHead  = "select version from es_events where kind = ? and id = ? order by version desc limit 1"
	selectPosition    = "select position from es_events where kind = ? and id = ? and version = ?"
	selectCommand     = "select first, last from es_commands where kind = ? and id = ? and command = ?"
	insertCommand     = "insert into es_commands (kind, id, command, first, last) values (?, ?, ?, ?, ?)"
	insertEvents      = "insert into es_events (position, kind, id, version, time, type, data, meta) values "
	eventValues       = "(?, ?, ?, ?, ?, ?, ?, ?)"
	eventColumns      = 8

	insertTaggedEvents = "insert into es_events (position, kind, id, version, time, type, data, meta, tags) values "
	taggedEventValues  = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

// insertSizes are the numbers of rows that one statement can insert. Larger ones save calls of C; each is a statement to prepare.
var insertSizes = []int{32, 8, 1}

// ready refreshes the cache for the transaction that has begun, if another connection has changed the database.
func (w *writer) ready(conn *sqlite3.SQLiteConn) error {
	if w.conn != conn {
		w.conn, w.statements = conn, make(map[string]driver.Stmt)
		w.forget()
	}
	if w.heads == nil {
		w.heads, _ = simplelru.NewLRU[es.Stream, es.Version](knownHeads, nil) // returns an error only for a size below 1
	}
	var version [1]int64
	if _, err := w.query(selectDataVersion, version[:]); err != nil {
		return err
	}
	if w.known && version[0] == w.dataVersion {
		return nil
	}
	if w.known {
		w.turns.noticed()
	}
	last, err := w.last()
	if err != nil {
		return err
	}
	if w.view, err = w.compare(last); err != nil {
		return err
	}
	w.heads.Purge()
	w.kinds = nil
	w.dataVersion, w.head, w.time, w.known = version[0], last.position, last.time, true
	return nil
}

// last returns the mark of the last record, or zero if the log is empty.
func (w *writer) last() (m mark, err error) {
	values := make([]driver.Value, 5)
	if found, err := w.step(selectLast, values, nil); err != nil || !found {
		return mark{}, err
	}
	position, _ := values[0].(int64)
	m.time, _ = values[1].(int64)
	m.stream.Kind, _ = values[2].(string)
	m.stream.ID, _ = values[3].(string)
	version, _ := values[4].(int64)
	m.position, m.version = es.Position(position), es.Version(version)
	return m, nil
}

// compare returns the view of the history of a log that ends with a record, and detects whether it was rewound.
func (w *writer) compare(last mark) (view, error) {
	has := func(m mark) (bool, error) {
		var found [1]int64
		_, err := w.query(selectMark, found[:], m.args()...)
		return found[0] != 0, err
	}
	v := w.history.view()
	if v.top != last && v.top != (mark{}) {
		if found, err := has(v.top); err != nil {
			return v, err
		} else if !found {
			return w.history.rewind(v, last, has)
		}
	}
	w.history.saw(v, last)
	return v, nil
}

// close closes the statements. SQLite keeps a connection, its files and its locks while one of its statements is open.
func (w *writer) close() (err error) {
	for _, stmt := range w.statements {
		err = errors.Join(err, stmt.Close())
	}
	w.statements = nil
	return err
}

func (w *writer) forget() { w.known, w.kinds = false, nil }

func (w *writer) selectHead(stream es.Stream) (es.Version, error) {
	var version [1]int64
	_, err := w.query(selectStreamHead, version[:], stream.Kind, stream.ID)
	if err == nil {
		w.heads.Add(stream, es.Version(version[0]))
	}
	return es.Version(version[0]), err
}

// selectPosition returns the position of a record, or 0 if the stream does not have it.
func (w *writer) selectPosition(stream es.Stream, version es.Version) (es.Position, error) {
	var position [1]int64
	_, err := w.query(selectPosition, position[:], stream.Kind, stream.ID, int64(version))
	return es.Position(position[0]), err
}

func (w *writer) selectCommand(c command) (s span, found bool, err error) {
	var versions [2]int64
	found, err = w.query(selectCommand, versions[:], c.stream.Kind, c.stream.ID, c.id)
	return span{es.Version(versions[0]), es.Version(versions[1])}, found, err
}

// insert writes the rows of a batch.
func (b *batch) insert() error {
	if len(b.rows) == 0 {
		return nil
	}
	b.head, b.time = b.writer.head, max(b.writer.time, time.Now().UnixMicro())
	if b.byTag != nil {
		if err := b.noteKinds(); err != nil {
			return err
		}
		if err := b.insertTags(); err != nil {
			return err
		}
	}
	for rows := b.rows; len(rows) > 0; {
		n := chunk(rows)
		if err := b.insertRows(rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	for c, s := range b.commands {
		if err := b.run(insertCommand, c.stream.Kind, c.stream.ID, c.id, int64(s.first), int64(s.last)); err != nil {
			return err
		}
	}
	return nil
}

// chunk returns how many of the rows to insert with the next statement. A large row is inserted alone, as go-sqlite3 copies all parameters at once.
func chunk(rows []row) int {
	for _, size := range insertSizes {
		bytes := 0
		for i := 0; i < min(size, len(rows)); i++ {
			bytes += len(rows[i].event.Data)
		}
		if size <= len(rows) && bytes <= 1<<20 {
			return size
		}
	}
	return 1
}

func (b *batch) insertRows(rows []row) error {
	args := b.args[:0]
	add := func(v driver.Value) { args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: v}) }
	var now driver.Value = b.time
	for i := range rows {
		r := &rows[i]
		b.head++
		add(int64(b.head))
		add(r.stream.Kind)
		add(r.stream.ID)
		add(int64(r.version))
		add(now)
		add(r.event.Type)
		if r.event.Data == nil {
			add([]byte{})
		} else {
			add(r.event.Data)
		}
		add(r.meta)
		if b.byTag != nil {
			add(r.tags)
		}
	}
	b.args = args
	statements := insertStatement
	if b.byTag != nil {
		statements = insertTaggedStatement
	}
	err := b.exec(statements[len(rows)], args)
	clear(args) // releases the callers' memory
	return err
}

var (
	insertStatement       = insertStatements(insertEvents, eventValues)
	insertTaggedStatement = insertStatements(insertTaggedEvents, taggedEventValues) // of a batch in which an event has tags
)

func insertStatements(insert, values string) map[int]string {
	statements := make(map[int]string)
	for _, n := range insertSizes {
		statements[n] = insert + strings.Repeat(values+", ", n-1) + values
	}
	return statements
}

// query runs a statement that returns at most one row of integers, and reports whether there was one.
func (w *writer) query(query string, row []int64, args ...driver.Value) (found bool, err error) {
	values := make([]driver.Value, len(row))
	found, err = w.step(query, values, named(args))
	for i := range row {
		row[i], _ = values[i].(int64)
	}
	return found, err
}

func (w *writer) run(query string, args ...driver.Value) error { return w.exec(query, named(args)) }

// exec runs a statement that returns no row. It runs it as a query, for which go-sqlite3 needs a single call of C; Exec needs one for each parameter.
func (w *writer) exec(query string, args []driver.NamedValue) error {
	_, err := w.step(query, nil, args)
	return err
}

// step runs a statement and sets the values of the first row that it returns.
func (w *writer) step(query string, values []driver.Value, args []driver.NamedValue) (found bool, err error) {
	stmt := w.statements[query]
	if stmt == nil {
		if stmt, err = w.conn.Prepare(query); err != nil {
			return false, err
		}
		w.statements[query] = stmt
	}
	rows, err := stmt.(driver.StmtQueryContext).QueryContext(background, args)
	if err != nil {
		return false, err
	}
	err = rows.Next(values)
	found = err == nil
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return found, errors.Join(err, rows.Close())
}

func named(values []driver.Value) []driver.NamedValue {
	args := make([]driver.NamedValue, len(values))
	for i, v := range values {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return args
}
