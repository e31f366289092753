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

// key identifies a projection.
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

// with returns the parameters of a statement: the key, then args.
func (k key) with(args ...any) []any { return append([]any{k.name, int64(k.version)}, args...) }

// row is a shard as stored in the database.
type row struct {
	shard  string
	cursor projection.Cursor
	time   int64 // of the last record applied, in microseconds since 1970; 0 if there is none
	claim  int64
	caught bool // whether it has ever reached the end of its source
	atEnd  bool // whether its holder has
	holder string
	live   bool // whether the holder has a recent heartbeat
}

// state is what a worker reads of its projection.
type state struct {
	source     string
	partitions int // requested number; 0 if the source has its own shards
	barrier    projection.Cursor
	rebuild    bool
	workers    int
	asked      bool // whether there are requests to retry or drop parked records
	shards     []row
}

func (e *Engine[Tx]) look(ctx context.Context, k key) (s state, err error) {
	err = e.db.View(ctx, func(scan func(...any) error) error {
		var r row
		err := scan(&s.source, &s.partitions, &s.barrier, &s.rebuild, &s.workers, &s.asked, &r.shard, &r.cursor, &r.claim, &r.atEnd, &r.holder, &r.live)
		s.shards = append(s.shards, r)
		return err
	}, e.stmts.state, k.with()...)
	return s, err
}

func (s state) names() []string {
	names := make([]string, len(s.shards))
	for i, r := range s.shards {
		names[i] = r.shard
	}
	return names
}

// newClaim returns a random non-zero token.
func newClaim() int64 { return 1 + rand.Int64N(1<<62) }

// exec runs a statement that may change no row.
func (e *Engine[Tx]) exec(ctx context.Context, tx Tx, sql string, args ...any) error {
	_, err := e.db.Exec(ctx, tx, sql, args...)
	return err
}

// alone runs a statement in its own transaction, and returns the number of rows changed.
func (e *Engine[Tx]) alone(ctx context.Context, o Options, sql string, args ...any) (n int64, err error) {
	err = e.db.Transact(ctx, o, func(ctx context.Context, tx Tx) error {
		n, err = e.db.Exec(ctx, tx, sql, args...)
		return err
	})
	return n, err
}

// header is the row of a projection.
type header struct {
	source     string
	partitions int
	barrier    projection.Cursor
	rebuild    bool
	found      bool
}

// locked reads and locks the row of a projection, which serializes changes to its set of shards.
func (e *Engine[Tx]) locked(ctx context.Context, tx Tx, k key) (h header, err error) {
	err = e.db.Query(ctx, tx, func(scan func(...any) error) error {
		h.found = true
		return scan(&h.source, &h.partitions, &h.barrier, &h.rebuild)
	}, e.stmts.lock, k.with()...)
	return h, err
}

func (e *Engine[Tx]) lockedShards(ctx context.Context, tx Tx, k key, sql string) (rows []row, err error) {
	err = e.db.Query(ctx, tx, func(scan func(...any) error) error {
		var r row
		err := scan(&r.shard, &r.cursor, &r.time, &r.caught)
		rows = append(rows, r)
		return err
	}, sql, k.with()...)
	return rows, err
}

// insertShards adds the shards that do not exist.
func (e *Engine[Tx]) insertShards(ctx context.Context, tx Tx, k key, names []string, r row) error {
	for _, name := range names {
		if err := e.exec(ctx, tx, e.stmts.insertShard, k.with(name, int64(r.cursor), r.time, newClaim(), r.caught)...); err != nil {
			return err
		}
	}
	return nil
}

// take makes a worker the holder of a shard, unless another worker is, and returns its row.
func (e *Engine[Tx]) take(ctx context.Context, k key, seen row, worker string) (r row, taken bool, err error) {
	r = row{shard: seen.shard, holder: worker, claim: newClaim()}
	err = e.db.Transact(ctx, Options{}, func(ctx context.Context, tx Tx) error {
		return e.db.Query(ctx, tx, func(scan func(...any) error) error {
			taken = true
			return scan(&r.cursor, &r.time, &r.caught)
		}, e.stmts.take, k.with(r.shard, worker, r.claim, seen.claim)...)
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

// request asks to retry a stream's parked records.
type request struct {
	shard  string
	stream es.Stream
}

func (e *Engine[Tx]) requests(ctx context.Context, k key) (requests []request, err error) {
	err = e.db.View(ctx, func(scan func(...any) error) error {
		var w request
		err := scan(&w.shard, &w.stream.Kind, &w.stream.ID)
		if !slices.Contains(requests, w) {
			requests = append(requests, w)
		}
		return err
	}, e.stmts.requests, k.with()...)
	return requests, err
}

// Requests that are stored with the first parked record of a stream.
const (
	requestRetry = "retry"
	requestDrop  = "drop"
)

// park stores a parked record, in the transaction that moves the checkpoint past it.
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
	return e.exec(ctx, tx, e.stmts.park, k.with(r.Stream.Kind, r.Stream.ID, int64(r.Version), int64(r.Position), r.Time.UnixMicro(), r.Type, data, meta,
		message, int64(attempts), shard)...)
}

// scanParked reads a row of parkedColumns, followed by more.
func scanParked(scan func(...any) error, more ...any) (p projection.Parked, err error) {
	var at, micros int64
	var meta string
	r := &p.Record
	err = scan(append([]any{&p.Name, &p.Version, &r.Stream.Kind, &r.Stream.ID, &r.Version, &r.Position, &micros, &r.Type, &r.Data, &meta, &p.Error, &p.Attempts, &at}, more...)...)
	if err != nil {
		return p, err
	}
	r.Time, p.At = timeOf(micros), timeOf(at)
	if meta != "" {
		err = json.Unmarshal([]byte(meta), &r.Meta)
	}
	return p, err
}

func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// errorText returns the text of an error as it is stored. Databases take only UTF-8 without NUL.
func errorText(err error) string { return clean(err.Error()) }
