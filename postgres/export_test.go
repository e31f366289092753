package postgres

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/engine"
)

// WriteTogether writes several calls of Append as the store does if they were made at the same time, in this order.
func (s *Store) WriteTogether(ctx context.Context, calls ...[]es.Append) ([]es.Position, []error) {
	requests := make([]*commit.Request, len(calls))
	for i, appends := range calls {
		requests[i] = &commit.Request{Appends: appends}
		for _, a := range appends {
			requests[i].Events += len(a.Events)
		}
	}
	tx, err := s.begin(ctx)
	positions, errs := make([]es.Position, len(calls)), make([]error, len(calls))
	if err == nil {
		tx.Write(ctx, requests)
	}
	for i, r := range requests {
		positions[i], errs[i] = r.Position, r.Err
		if err != nil {
			errs[i] = err
		}
	}
	return positions, errs
}

// Gathering returns the number of reads that wait for a shared query.
func (s *Store) Gathering() int {
	s.loader.mu.Lock()
	defer s.loader.mu.Unlock()
	return s.loader.group.Waiting()
}

// Loading returns the number of queries of reads in flight.
func (s *Store) Loading() int {
	s.loader.mu.Lock()
	defer s.loader.mu.Unlock()
	return s.loader.busy
}

// ReadTogetherBy makes shared queries return their rows in another order, as a different plan might.
func (s *Store) ReadTogetherBy(order string) {
	s.statements.streams = s.newStatement(s.statements.streams.sql + " order by " + order)
}

// The binary format, which tests compare with the server's.
var (
	Ints      = getInts
	Timestamp = getTime
)

func TextArray(texts ...string) []byte {
	var a array
	a.reset(oidText)
	for _, s := range texts {
		a.text(s)
	}
	return a.param()
}

func BytesArray(all ...[]byte) []byte {
	var a array
	a.reset(oidBytea)
	for _, b := range all {
		a.bytes(b)
	}
	return a.param()
}

func Int8Array(ints ...int64) []byte {
	var a array
	a.reset(oidInt8)
	for _, i := range ints {
		a.int8(i)
	}
	return a.param()
}

func Int4Array(ints ...int64) []byte {
	var a array
	a.reset(oidInt4)
	for _, i := range ints {
		a.int4(int(i))
	}
	return a.param()
}

// ReadTogether reads streams in one shared query.
func (s *Store) ReadTogether(ctx context.Context, streams ...es.Stream) ([][]es.Record, error) {
	loads := make([]*load, len(streams))
	s.loader.mu.Lock()
	for i, stream := range streams {
		loads[i] = &load{ctx: ctx, stream: stream, page: page{whole: true}}
		s.loader.group.Wait(loads[i])
	}
	round := s.loader.group.Take(nil)
	s.loader.mu.Unlock()
	s.loader.readTogether(round)
	var records [][]es.Record
	var errs []error
	for _, q := range loads {
		records, errs = append(records, q.page.records), append(errs, q.page.err)
	}
	return records, errors.Join(errs...)
}

// Resolve looks up a call of append that was never made, as if it had been sent at a position.
func (s *Store) Resolve(ctx context.Context, after es.Position) error {
	params := [][]byte{int8Param(int64(after)), int8Param(2), int8Param(3)}
	return s.once(ctx, s.runner(), s.statements.resolve, params, func([][]byte) error { return errors.New("an event of that call was found") })
}

// MigrateTo creates the schema of an earlier release.
func MigrateTo(ctx context.Context, pool *pgxpool.Pool, version int) error {
	s, err := Config{}.store(pool)
	if err != nil {
		return err
	}
	defer s.Close()
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return s.migrateTo(ctx, tx, version) })
}

// FastPath reports whether the next single event would take the fast path.
func (s *Store) FastPath() bool { return s.solo.open() }

// AbandonAfter sets how long an abandoned page may take to arrive before its query is cancelled.
func (s *Store) AbandonAfter(d time.Duration) { s.abandonAfter = d }

// Texts returns every statement of the store and of its projections, by name.
func (s *Store) Texts() map[string]string {
	texts := make(map[string]string)
	v := reflect.ValueOf(s.statements)
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Pointer:
			texts[v.Type().Field(i).Name] = f.Elem().FieldByName("sql").String()
		case reflect.String:
			texts[v.Type().Field(i).Name] = f.String()
		}
	}
	engine.NewSQL(recorder{backend{s}, texts})
	return texts
}

// A recorder notes the statements of an engine.
type recorder struct {
	backend
	texts map[string]string
}

func (r recorder) Dialect() engine.Dialect {
	d := r.backend.Dialect()
	finish := d.Finish
	d.Finish = func(text string) string {
		text = finish(text)
		r.texts[fmt.Sprint("projection ", len(r.texts))] = text
		return text
	}
	return d
}

// MigrationKey returns the key of the lock that a migration of a schema takes.
func MigrationKey(schema string) int64 {
	return (&Store{config: Config{Schema: schema}}).lockKey("migrate")
}

// SetHash sets the function by which tags are indexed.
func (s *Store) SetHash(hash func(tag string) int64) { s.batch.tags.hash = hash }
