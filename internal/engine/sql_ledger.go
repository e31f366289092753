package engine

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/canon"
	"github.com/thalo-go/es/internal/tag"
	"github.com/thalo-go/es/projection"
)

// Database is a SQL database that has read models.
type Database[Tx any] interface {
	Store[Tx]

	// Dialect returns the fragments of statements.
	Dialect() Dialect

	// Exec runs a statement in a transaction and returns the number of rows changed.
	Exec(ctx context.Context, tx Tx, sql string, args ...any) (int64, error)

	// Query runs a query in a transaction and calls row for each row with the function that scans it.
	Query(ctx context.Context, tx Tx, row func(scan func(into ...any) error) error, sql string, args ...any) error

	// View is Query outside a transaction.
	View(ctx context.Context, row func(scan func(into ...any) error) error, sql string, args ...any) error
}

// Dialect has the fragments in which statements differ between databases.
type Dialect struct {
	Prefix    string // before the name of a table
	Now       string // the time of the database, in microseconds since 1970
	Lock      string // after a select: locks the rows, and waits for other transactions
	Skip      string // after a select: locks the rows that are not locked, and omits the others
	Parameter string // before the number of a parameter
	Holding   string // a query for the session whose transaction holds shard $3, as Session has it; empty if the database does not tell
	Arrays    bool   // a parameter can be an array, and unnest makes rows of it

	Finish func(text string) string // changes the text of each statement; nil leaves it
}

// SQL replaces the placeholders in text by the fragments.
func (d Dialect) SQL(text string) string {
	text = strings.ReplaceAll(text, "{live}", live)
	text = strings.NewReplacer("{es}", d.Prefix, "{now}", d.Now, "{lock}", d.Lock, "{skip}", d.Skip, "$", d.Parameter).Replace(text)
	if d.Finish != nil {
		text = d.Finish(text)
	}
	return text
}

// sqlLedger is the [Ledger] of SQL databases.
type sqlLedger[Tx any] struct {
	Database[Tx]
	stmts statements
}

func newSQLLedger[Tx any](db Database[Tx]) *sqlLedger[Tx] {
	l := &sqlLedger[Tx]{db, prepare(db.Dialect())}
	if db.Dialect().Arrays {
		l.stmts.enrolAll = enrolmentOfArrays(db.Dialect())
		return l
	}
	l.stmts.enrol = sync.OnceValue(func() (list []string) {
		for _, rows := range enrolments {
			list = append(list, enrolment(db.Dialect(), rows))
		}
		return list
	})
	return l
}

// with returns the parameters of a statement: the key, then args.
func (k Key) with(args ...any) []any { return append([]any{k.Name, int64(k.Version)}, args...) }

// exec runs statements that may change no row.
func (l *sqlLedger[Tx]) exec(ctx context.Context, tx Tx, k Key, statements ...string) error {
	for _, sql := range statements {
		if _, err := l.Exec(ctx, tx, sql, k.with()...); err != nil {
			return err
		}
	}
	return nil
}

// set runs a statement that may change no row.
func (l *sqlLedger[Tx]) set(ctx context.Context, tx Tx, sql string, args ...any) error {
	_, err := l.Exec(ctx, tx, sql, args...)
	return err
}

// change runs a statement that changes one row, and reports whether it did.
func (l *sqlLedger[Tx]) change(ctx context.Context, tx Tx, sql string, args ...any) (bool, error) {
	n, err := l.Exec(ctx, tx, sql, args...)
	return n > 0 && err == nil, err
}

// alone is change in a transaction of its own.
func (l *sqlLedger[Tx]) alone(ctx context.Context, o Options, sql string, args ...any) (changed bool, err error) {
	err = l.Transact(ctx, o, func(ctx context.Context, tx Tx) error {
		changed, err = l.change(ctx, tx, sql, args...)
		return err
	})
	return changed && err == nil, err
}

// quiet is alone for what a crash may undo.
func (l *sqlLedger[Tx]) quiet(ctx context.Context, sql string, args ...any) error {
	_, err := l.alone(ctx, Options{Quiet: true}, sql, args...)
	return err
}

// fields returns where the values of headerColumns go.
func (h *Header) fields() []any {
	return []any{&h.Kind, &h.Source, &h.Filter, &h.Replaced, &h.Prepares, &h.Partitions, &h.Barrier, &h.Rebuild, &h.Identity, &h.Delays}
}

// Overview implements [Ledger].
func (l *sqlLedger[Tx]) Overview(ctx context.Context, k Key) (o Overview, err error) {
	err = l.View(ctx, func(scan func(...any) error) error {
		var s Shard
		err := scan(append(o.fields(), &o.Workers, &o.Asked, &s.Name, &s.Cursor, &s.Time, &s.Claim, &s.AtEnd, &s.Holder, &s.Needs, &s.Past, &s.PastEnd, &s.Live)...)
		o.Found, o.Shards = true, append(o.Shards, s)
		return err
	}, l.stmts.state, k.with()...)
	return o, err
}

// Checkpoints implements [Ledger].
func (l *sqlLedger[Tx]) Checkpoints(ctx context.Context, name string) (all []Checkpoint, err error) {
	err = l.View(ctx, func(scan func(...any) error) error {
		c, behind := Checkpoint{Key: Key{Name: name}}, 0
		err := scan(&c.Version, &c.Kind, &c.Partitions, &c.Cursor, &behind, &c.Error)
		c.CaughtUp = behind == 0
		all = append(all, c)
		return err
	}, l.stmts.cursors, name)
	return all, err
}

// Status implements [Ledger].
func (l *sqlLedger[Tx]) Status(ctx context.Context) ([]projection.Status, error) {
	list, delays := []projection.Status{}, false
	err := l.View(ctx, func(scan func(...any) error) error {
		var s projection.Status
		var at, errorAt, still int64
		var live, timers bool
		var filter string
		err := scan(&s.Name, &s.Version, &s.Shard, &s.Kind, &s.Source, &filter, &s.Cursor, &at, &s.CaughtUp, &s.Error, &errorAt, &s.Worker, &s.NeedsType, &live, &s.Parked, &still, &timers)
		delays = delays || timers
		s.Time, s.ErrorAt = TimeOf(at), TimeOf(errorAt)
		if !live {
			s.Worker = ""
		}
		if still > 0 {
			s.Lag = &projection.Lag{Age: time.Duration(still) * time.Microsecond}
		}
		if err == nil && filter != "" {
			s.Filter, err = canon.Parse(filter)
		}
		list = append(list, s)
		return err
	}, l.stmts.status)
	if err == nil && delays {
		err = l.countTimers(ctx, list)
	}
	if err == nil && slices.ContainsFunc(list, func(s projection.Status) bool { return s.NeedsType != "" }) {
		err = l.withoutKnown(ctx, list)
	}
	return list, err
}

// withoutKnown clears the types that a live worker knows.
func (l *sqlLedger[Tx]) withoutKnown(ctx context.Context, list []projection.Status) error {
	return l.View(ctx, func(scan func(...any) error) error {
		var k Key
		var text string
		err := scan(&k.Name, &k.Version, &text)
		if err != nil {
			return err
		}
		lacks, err := typesOf(text)
		for i := range list {
			if s := &list[i]; s.Name == k.Name && s.Version == k.Version && !slices.Contains(lacks, s.NeedsType) {
				s.NeedsType = ""
			}
		}
		return err
	}, l.stmts.allLacks)
}

// typesOf returns the event types in a column: a JSON array, or "" if there are none.
func typesOf(text string) (types []string, err error) {
	if text != "" {
		err = json.Unmarshal([]byte(text), &types)
	}
	return types, err
}

// Lacks implements [Ledger].
func (l *sqlLedger[Tx]) Lacks(ctx context.Context, k Key) (map[string][]string, error) {
	lacks := make(map[string][]string)
	err := l.View(ctx, func(scan func(...any) error) error {
		var worker, text string
		err := scan(&worker, &text)
		if err == nil {
			lacks[worker], err = typesOf(text)
		}
		return err
	}, l.stmts.lacks, k.with()...)
	return lacks, err
}

// Need implements [Ledger].
func (l *sqlLedger[Tx]) Need(ctx context.Context, k Key, s Shard, eventType string) error {
	return l.quiet(ctx, l.stmts.need, k.with(s.Name, s.Claim, eventType)...)
}

// collect returns a function for each row of two columns, the kind and the ID of a stream.
func collect(streams *[]es.Stream) func(scan func(...any) error) error {
	return func(scan func(...any) error) error {
		var s es.Stream
		err := scan(&s.Kind, &s.ID)
		*streams = append(*streams, s)
		return err
	}
}

// Holding implements [Ledger].
func (l *sqlLedger[Tx]) Holding(ctx context.Context, k Key, shard string) (s Session, found bool, err error) {
	if l.stmts.holding == "" {
		return s, false, nil
	}
	err = l.View(ctx, func(scan func(...any) error) error {
		found = true
		return scan(&s.PID, &s.Idle, &s.Waits, &s.Query, &s.Since, &s.Blocker, &s.Blocks)
	}, l.stmts.holding, k.with(shard)...)
	return s, found, err
}

// Last implements [Ledger].
func (l *sqlLedger[Tx]) Last(ctx context.Context, k Key, shard string) (last Last, err error) {
	err = l.View(ctx, func(scan func(...any) error) error { return scan(&last.Holder, &last.Beat, &last.Moved) }, l.stmts.last, k.with(shard)...)
	return last, err
}

// Blocked implements [Ledger].
func (l *sqlLedger[Tx]) Blocked(ctx context.Context, k Key, shard string) (streams []es.Stream, err error) {
	err = l.View(ctx, collect(&streams), l.stmts.waiting, k.with(shard)...)
	return streams, err
}

// Requests implements [Ledger].
func (l *sqlLedger[Tx]) Requests(ctx context.Context, k Key) (requests []Request, err error) {
	err = l.View(ctx, func(scan func(...any) error) error {
		var r Request
		err := scan(&r.Shard, &r.Stream.Kind, &r.Stream.ID)
		if !slices.Contains(requests, r) {
			requests = append(requests, r)
		}
		return err
	}, l.stmts.requests, k.with()...)
	return requests, err
}

// FirstParked implements [Ledger].
func (l *sqlLedger[Tx]) FirstParked(ctx context.Context, k Key, stream es.Stream) (p projection.Parked, request string, found bool, err error) {
	err = l.View(ctx, func(scan func(...any) error) (err error) {
		found = true
		p, err = scanParked(scan, &request)
		return err
	}, l.stmts.parkedOf, k.with(stream.Kind, stream.ID)...)
	return p, request, found, err
}

// Parked implements [Ledger].
func (l *sqlLedger[Tx]) Parked(ctx context.Context, after projection.Parked, limit int) (page []projection.Parked, err error) {
	r := after.Record
	err = l.View(ctx, func(scan func(...any) error) error {
		p, err := scanParked(scan)
		page = append(page, p)
		return err
	}, l.stmts.parked, after.Name, int64(after.Version), int64(r.Position), r.Stream.Kind, r.Stream.ID, int64(r.Version), int64(r.Part), int64(limit))
	return page, err
}

// scanParked reads a row of parkedColumns, followed by more.
func scanParked(scan func(...any) error, more ...any) (p projection.Parked, err error) {
	var at, micros int64
	var meta, tags string
	r := &p.Record
	err = scan(append([]any{&p.Name, &p.Version, &r.Stream.Kind, &r.Stream.ID, &r.Version, &r.Position, &micros, &r.Type, &r.Data, &meta, &tags, &r.Part, &p.Error, &p.Attempts, &at}, more...)...)
	if err != nil {
		return p, err
	}
	r.Time, p.At, r.Tags = TimeOf(micros), TimeOf(at), tag.Split(tags)
	if meta != "" {
		err = json.Unmarshal([]byte(meta), &r.Meta)
	}
	return p, err
}

// Heartbeat implements [Ledger].
func (l *sqlLedger[Tx]) Heartbeat(ctx context.Context, k Key, worker string, lease time.Duration, lacks []string) error {
	text := ""
	if len(lacks) > 0 {
		list, err := json.Marshal(lacks)
		if err != nil {
			return err
		}
		text = string(list)
	}
	return l.quiet(ctx, l.stmts.heartbeat, k.with(worker, lease.Microseconds(), text)...)
}

// Leave implements [Ledger].
func (l *sqlLedger[Tx]) Leave(ctx context.Context, k Key, worker string) error {
	return l.quiet(ctx, l.stmts.deleteWorker, k.with(worker)...)
}

// Take implements [Ledger].
func (l *sqlLedger[Tx]) Take(ctx context.Context, k Key, seen Shard, worker string) (s Shard, taken bool, err error) {
	s = Shard{Name: seen.Name, Holder: worker, Claim: NewClaim(), Filter: seen.Filter}
	err = l.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		return l.Query(ctx, tx, func(scan func(...any) error) error {
			taken = true
			return scan(&s.Cursor, &s.Time, &s.CaughtUp, &s.Past, &s.PastEnd)
		}, l.stmts.take, k.with(s.Name, worker, s.Claim, seen.Claim, seen.Filter)...)
	})
	return s, taken && err == nil, err
}

// Release implements [Ledger].
func (l *sqlLedger[Tx]) Release(ctx context.Context, k Key, s Shard) error {
	return l.quiet(ctx, l.stmts.release, k.with(s.Name, s.Claim)...)
}

// Fail implements [Ledger].
func (l *sqlLedger[Tx]) Fail(ctx context.Context, k Key, s Shard, message string) error {
	if s.Claim == 0 {
		return l.quiet(ctx, l.stmts.failAny, k.with(s.Name, message)...)
	}
	return l.quiet(ctx, l.stmts.fail, k.with(s.Name, s.Claim, message)...)
}

// Request implements [Ledger].
func (l *sqlLedger[Tx]) Request(ctx context.Context, k Key, stream es.Stream, want string) (found bool, err error) {
	return l.alone(ctx, Options{}, l.stmts.request, k.with(stream.Kind, stream.ID, want)...)
}

// Insert implements [Ledger].
func (l *sqlLedger[Tx]) Insert(ctx context.Context, tx Tx, k Key, h Header) (inserted bool, err error) {
	return l.change(ctx, tx, l.stmts.insert, k.with(h.Source, int64(h.Partitions), string(h.Kind), h.Filter, h.Prepares, h.Identity, h.Delays)...)
}

// Describe implements [Ledger].
func (l *sqlLedger[Tx]) Describe(ctx context.Context, tx Tx, k Key, h Header) error {
	if err := l.set(ctx, tx, l.stmts.describe, k.with(string(h.Kind), h.Filter, h.Prepares, h.Delays)...); err != nil {
		return err
	}
	return l.set(ctx, tx, l.stmts.describeShards, k.with(canon.Mark(h.Filter))...)
}

// SetRebuild implements [Ledger].
func (l *sqlLedger[Tx]) SetRebuild(ctx context.Context, tx Tx, k Key, requested bool) error {
	return l.set(ctx, tx, l.stmts.setRebuild, k.with(requested)...)
}

// SetIdentity implements [Ledger].
func (l *sqlLedger[Tx]) SetIdentity(ctx context.Context, tx Tx, k Key, identity string) error {
	return l.set(ctx, tx, l.stmts.setIdentity, k.with(identity)...)
}

// Refilter implements [Ledger].
func (l *sqlLedger[Tx]) Refilter(ctx context.Context, tx Tx, k Key, filter string, past bool) error {
	if err := l.set(ctx, tx, l.stmts.refilter, k.with(filter)...); err != nil {
		return err
	}
	return l.set(ctx, tx, l.stmts.refilterShards, k.with(canon.Mark(filter), NewClaim(), past)...)
}

// Rewind implements [Ledger].
func (l *sqlLedger[Tx]) Rewind(ctx context.Context, tx Tx, k Key, to projection.Cursor) error {
	if err := l.set(ctx, tx, l.stmts.rewind, k.with(int64(to), NewClaim())...); err != nil {
		return err
	}
	if err := l.set(ctx, tx, l.stmts.timersBehind, k.with(int64(to))...); err != nil {
		return err
	}
	return l.set(ctx, tx, l.stmts.deleteBehind, k.with(int64(to))...)
}

// Rename implements [Ledger].
func (l *sqlLedger[Tx]) Rename(ctx context.Context, tx Tx, old, name string) error {
	for _, sql := range []string{l.stmts.rename, l.stmts.renameShards, l.stmts.renameWorkers, l.stmts.renameParked, l.stmts.renameTimers} {
		if err := l.set(ctx, tx, sql, old, name); err != nil {
			return err
		}
	}
	return nil
}

// Lock implements [Ledger].
func (l *sqlLedger[Tx]) Lock(ctx context.Context, tx Tx, k Key) (h Header, err error) {
	err = l.Query(ctx, tx, func(scan func(...any) error) error {
		h.Found = true
		return scan(h.fields()...)
	}, l.stmts.lock, k.with()...)
	return h, err
}

// SetPartitions implements [Ledger].
func (l *sqlLedger[Tx]) SetPartitions(ctx context.Context, tx Tx, k Key, partitions int) error {
	return l.set(ctx, tx, l.stmts.setPartitions, k.with(int64(partitions))...)
}

// SetBarrier implements [Ledger].
func (l *sqlLedger[Tx]) SetBarrier(ctx context.Context, tx Tx, k Key, barrier projection.Cursor) error {
	return l.set(ctx, tx, l.stmts.setBarrier, k.with(int64(barrier))...)
}

// Restart implements [Ledger].
func (l *sqlLedger[Tx]) Restart(ctx context.Context, tx Tx, k Key, h Header) error {
	if _, err := l.shards(ctx, tx, k, l.stmts.lockShards); err != nil {
		return err
	}
	if err := l.exec(ctx, tx, k, l.stmts.deleteShards, l.stmts.deleteParked); err != nil {
		return err
	}
	return l.set(ctx, tx, l.stmts.rebuilt, k.with(h.Source, int64(h.Partitions), string(h.Kind), h.Filter, h.Prepares)...)
}

func (l *sqlLedger[Tx]) shards(ctx context.Context, tx Tx, k Key, sql string) (shards []Shard, err error) {
	err = l.Query(ctx, tx, func(scan func(...any) error) error {
		var s Shard
		err := scan(&s.Name, &s.Cursor, &s.Time, &s.CaughtUp, &s.PastEnd)
		shards = append(shards, s)
		return err
	}, sql, k.with()...)
	return shards, err
}

// InsertShards implements [Ledger].
func (l *sqlLedger[Tx]) InsertShards(ctx context.Context, tx Tx, k Key, names []string, like Shard) error {
	for _, name := range names {
		if err := l.set(ctx, tx, l.stmts.insertShard, k.with(name, int64(like.Cursor), like.Time, NewClaim(), like.CaughtUp, like.Filter)...); err != nil {
			return err
		}
	}
	return nil
}

// IdleShards implements [Ledger].
func (l *sqlLedger[Tx]) IdleShards(ctx context.Context, tx Tx, k Key) (idle []Shard, all int, err error) {
	if idle, err = l.shards(ctx, tx, k, l.stmts.skipShards); err != nil {
		return nil, 0, err
	}
	all, err = l.count(ctx, tx, k, l.stmts.countShards)
	return idle, all, err
}

func (l *sqlLedger[Tx]) count(ctx context.Context, tx Tx, k Key, sql string) (n int, err error) {
	err = l.Query(ctx, tx, func(scan func(...any) error) error { return scan(&n) }, sql, k.with()...)
	return n, err
}

// Replace implements [Ledger].
func (l *sqlLedger[Tx]) Replace(ctx context.Context, tx Tx, k Key, names []string, like Shard, shardOf func(es.Stream) string) error {
	if err := l.exec(ctx, tx, k, l.stmts.deleteShards); err != nil {
		return err
	}
	if err := l.InsertShards(ctx, tx, k, names, like); err != nil {
		return err
	}
	var streams []es.Stream
	if err := l.Query(ctx, tx, collect(&streams), l.stmts.parkedStreams, k.with()...); err != nil {
		return err
	}
	for _, s := range streams {
		if err := l.set(ctx, tx, l.stmts.reshard, k.with(s.Kind, s.ID, shardOf(s))...); err != nil {
			return err
		}
	}
	return l.SetBarrier(ctx, tx, k, -1)
}

// Move implements [Ledger].
func (l *sqlLedger[Tx]) Move(ctx context.Context, tx Tx, k Key, s Shard, to Target) (moved bool, err error) {
	if s.PastEnd > 0 {
		return l.change(ctx, tx, l.stmts.movePast, k.with(s.Name, s.Claim, int64(s.Cursor), int64(to.Cursor))...)
	}
	return l.change(ctx, tx, l.stmts.move, k.with(s.Name, s.Claim, int64(s.Cursor), int64(to.Cursor), to.Time, to.End)...)
}

// MoveInline implements [Ledger].
func (l *sqlLedger[Tx]) MoveInline(ctx context.Context, tx Tx, k Key, from projection.Cursor, to Target) (moved bool, err error) {
	m := l.moveInline(k, from, to)
	return l.change(ctx, tx, m.SQL, m.Args...)
}

func (l *sqlLedger[Tx]) moveInline(k Key, from projection.Cursor, to Target) Statement {
	return Statement{l.stmts.moveInline, k.with(int64(from), int64(to.Cursor), to.Time, to.End)}
}

// Park implements [Ledger].
func (l *sqlLedger[Tx]) Park(ctx context.Context, tx Tx, k Key, shard string, r *es.Record, message string, attempts int) error {
	meta := ""
	if len(r.Meta) > 0 {
		text, err := json.Marshal(r.Meta)
		if err != nil {
			return err
		}
		meta = string(text)
	}
	data := r.Data
	if data == nil {
		data = []byte{}
	}
	return l.set(ctx, tx, l.stmts.park, k.with(r.Stream.Kind, r.Stream.ID, int64(r.Version), int64(r.Position), r.Time.UnixMicro(), r.Type, data, meta, tag.Join(r.Tags), int64(r.Part),
		message, int64(attempts), shard)...)
}

// record returns the parameters that identify a parked record.
func (k Key) record(r es.Record, args ...any) []any {
	return append(k.with(r.Stream.Kind, r.Stream.ID, int64(r.Version), int64(r.Part)), args...)
}

// Unpark implements [Ledger].
func (l *sqlLedger[Tx]) Unpark(ctx context.Context, tx Tx, k Key, r es.Record) error {
	if err := l.set(ctx, tx, l.stmts.unpark, k.record(r)...); err != nil {
		return err
	}
	return l.set(ctx, tx, l.stmts.request, k.with(r.Stream.Kind, r.Stream.ID, RequestRetry)...)
}

// FailParked implements [Ledger].
func (l *sqlLedger[Tx]) FailParked(ctx context.Context, tx Tx, k Key, r es.Record, message string) error {
	return l.set(ctx, tx, l.stmts.failParked, k.record(r, message)...)
}

// Workers implements [Ledger].
func (l *sqlLedger[Tx]) Workers(ctx context.Context, tx Tx, k Key) (int, error) {
	return l.count(ctx, tx, k, l.stmts.alive)
}

// Forget implements [Ledger].
func (l *sqlLedger[Tx]) Forget(ctx context.Context, tx Tx, k Key) error {
	return l.exec(ctx, tx, k, l.stmts.deleteParked, l.stmts.deleteTimers, l.stmts.deleteShards, l.stmts.deleteWorkers, l.stmts.forget)
}
