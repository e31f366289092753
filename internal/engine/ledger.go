package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// A key names a projection.
type key struct {
	name    string
	version int
}

func (k key) String() string {
	if k.version == 0 {
		return k.name
	}
	return fmt.Sprintf("%s@%d", k.name, k.version)
}

// with puts the key before the parameters of a statement.
func (k key) with(args ...any) []any { return append([]any{k.name, int64(k.version)}, args...) }

// A row is a shard as it stands in the database.
type row struct {
	shard  string
	cursor projection.Cursor
	time   int64 // of the last record applied, in microseconds since 1970; 0 if there is none
	claim  int64
	caught bool // it has come to the end of its source once
	atEnd  bool // its holder has
	holder string
	live   bool // the holder has a heartbeat
}

// A state is what a worker sees of its projection when it looks.
type state struct {
	source     string
	partitions int // into how many the source is to be divided; 0 if it cannot be
	barrier    projection.Cursor
	rebuild    bool
	workers    int
	asked      bool // somebody wants parked records to be retried or dropped
	shards     []row
}

func (e *Engine[Tx]) look(ctx context.Context, k key) (s state, err error) {
	err = e.db.View(ctx, func(scan func(...any) error) error {
		var r row
		err := scan(&s.source, &s.partitions, &s.barrier, &s.rebuild, &s.workers, &s.asked, &r.shard, &r.cursor, &r.claim, &r.atEnd, &r.holder, &r.live)
		s.shards = append(s.shards, r)
		return err
	}, e.say.state, k.with()...)
	return s, err
}

func (s state) names() []string {
	names := make([]string, len(s.shards))
	for i, r := range s.shards {
		names[i] = r.shard
	}
	return names
}

// newClaim is never 0, and never one that was before.
func newClaim() int64 { return 1 + rand.Int64N(1<<62) }

// exec runs a statement that need not change anything.
func (e *Engine[Tx]) exec(ctx context.Context, tx Tx, sql string, args ...any) error {
	_, err := e.db.Exec(ctx, tx, sql, args...)
	return err
}

// alone runs a statement in a transaction of its own, and returns how many rows it changed.
func (e *Engine[Tx]) alone(ctx context.Context, o Options, sql string, args ...any) (n int64, err error) {
	err = e.db.Transact(ctx, o, func(ctx context.Context, tx Tx) error {
		n, err = e.db.Exec(ctx, tx, sql, args...)
		return err
	})
	return n, err
}

// A header is the row of a projection.
type header struct {
	source     string
	partitions int
	barrier    projection.Cursor
	rebuild    bool
	found      bool
}

// locked reads the row of a projection and locks it to the end of the transaction. It is what changes to the set of shards wait for.
func (e *Engine[Tx]) locked(ctx context.Context, tx Tx, k key) (h header, err error) {
	err = e.db.Query(ctx, tx, func(scan func(...any) error) error {
		h.found = true
		return scan(&h.source, &h.partitions, &h.barrier, &h.rebuild)
	}, e.say.lock, k.with()...)
	return h, err
}

func (e *Engine[Tx]) shards(ctx context.Context, tx Tx, k key, sql string) (rows []row, err error) {
	err = e.db.Query(ctx, tx, func(scan func(...any) error) error {
		var r row
		err := scan(&r.shard, &r.cursor, &r.time, &r.caught)
		rows = append(rows, r)
		return err
	}, sql, k.with()...)
	return rows, err
}

// insertShards adds the shards that are not there.
func (e *Engine[Tx]) insertShards(ctx context.Context, tx Tx, k key, names []string, r row) error {
	for _, name := range names {
		if err := e.exec(ctx, tx, e.say.insertShard, k.with(name, int64(r.cursor), r.time, newClaim(), r.caught)...); err != nil {
			return err
		}
	}
	return nil
}

// take makes a worker the holder of a shard, unless another is, and returns it as it stands then.
func (e *Engine[Tx]) take(ctx context.Context, k key, seen row, worker string) (r row, taken bool, err error) {
	r = row{shard: seen.shard, holder: worker, claim: newClaim()}
	err = e.db.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		return e.db.Query(ctx, tx, func(scan func(...any) error) error {
			taken = true
			return scan(&r.cursor, &r.time, &r.caught)
		}, e.say.take, k.with(r.shard, worker, r.claim, seen.claim)...)
	})
	return r, taken && err == nil, err
}

func (e *Engine[Tx]) streams(ctx context.Context, sql string, args ...any) (streams []es.Stream, err error) {
	err = e.db.View(ctx, func(scan func(...any) error) error {
		var s es.Stream
		err := scan(&s.Kind, &s.ID)
		streams = append(streams, s)
		return err
	}, sql, args...)
	return streams, err
}

// A wish is that of somebody who wants the parked records of a stream to be tried again.
type wish struct {
	shard  string
	stream es.Stream
}

func (e *Engine[Tx]) wishes(ctx context.Context, k key) (wishes []wish, err error) {
	err = e.db.View(ctx, func(scan func(...any) error) error {
		var w wish
		err := scan(&w.shard, &w.stream.Kind, &w.stream.ID)
		if !slices.Contains(wishes, w) {
			wishes = append(wishes, w)
		}
		return err
	}, e.say.asked, k.with()...)
	return wishes, err
}

// What somebody wants of the first of the parked records of a stream.
const (
	wantRetry = "retry"
	wantDrop  = "drop"
)

// park puts a record aside, in the transaction that moves the checkpoint past it.
func (e *Engine[Tx]) park(ctx context.Context, tx Tx, k key, shard string, r *es.Record, message string, attempts int) error {
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
	return e.exec(ctx, tx, e.say.park, k.with(r.Stream.Kind, r.Stream.ID, int64(r.Version), int64(r.Position), r.Time.UnixMicro(), r.Type, data, meta,
		message, int64(attempts), shard)...)
}

// scanParked reads a row of parkedColumns, and what more there is.
func scanParked(scan func(...any) error, more ...any) (p projection.Parked, err error) {
	var at, micros int64
	var meta string
	r := &p.Record
	err = scan(append([]any{&p.Name, &p.Version, &r.Stream.Kind, &r.Stream.ID, &r.Version, &r.Position, &micros, &r.Type, &r.Data, &meta, &p.Error, &p.Attempts, &at}, more...)...)
	if err != nil {
		return p, err
	}
	r.Time, p.At = moment(micros), moment(at)
	if meta != "" {
		err = json.Unmarshal([]byte(meta), &r.Meta)
	}
	return p, err
}

func moment(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// messageOf is the text of an error as it is kept: it may be of any length, and a database takes no other text than UTF-8 without NUL.
func messageOf(err error) string { return clean(err.Error()) }
