package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/redaction"
	"github.com/thalo-go/es/internal/tag"
)

const (
	selectRedactable  = "select position, type, tags from es_events where kind = ? and id = ? and version = ?"
	selectRedaction   = "select audit from es_redactions where kind = ? and id = ? and version = ?"
	selectEventChecks = `select name, sql from sqlite_master where type = 'trigger' and tbl_name = 'es_events' and name like 'es\_%' escape '\'`
	redactEvent       = "update es_events set type = ?, data = x'', meta = null where position = ?"
	insertRedaction   = "insert into es_redactions (kind, id, version, audit) values (?, ?, ?, ?)"
	deleteSnapshot    = "delete from es_snapshots where kind = ? and id = ?"
	redactParked      = `update es_parked set type = ?, data = x'', meta = '', error = case error when '' then '' else 'erased' end where ` + parkedOfEvent
	parkedOfEvent     = "kind = ? and id = ? and stream_version = ? and (name, version) in (select name, version from es_projections where source = ?)"
	redactErrors      = "update es_shards set error = 'erased' where instr(error, ?) > 0"
	selectTimersOf    = "select count(*) from es_timers where position = ? and (name, version) in (select name, version from es_projections where source = ?)"
	selectReaders     = "select name, version, kind from es_projections where source = ? order by name, version"
	selectRelays      = `select name from es_leases where name like 'relay/%'
		union select name from es_checkpoints where name like 'relay/%' and name not like '%/filter' order by name`
	countChanges       = "select changes()"
	busyUntilEmptied   = 1000 // milliseconds
	selectWALTruncated = "pragma wal_checkpoint(truncate)"
)

// Redact erases the content of one event, and every copy that the database has of it, in one transaction: its type becomes
// [es.TypeRedacted], and its data and metadata are removed; the snapshot of its stream is removed; in records that projections have parked
// the same is erased. Version, position, time and tags stay. A record of type [es.TypeRedaction] with the reason is appended to the stream:
// every Repo that meets it, in any process, drops what it knows and reads the stream from the beginning. A process that is about to save or
// park an older copy cannot do so any more.
//
// The bytes are overwritten in the file, and the write-ahead log is emptied. The result names what cannot be reached.
//
// A second call changes nothing and reports Repeated. A version that the stream does not have, and a record of the store itself, are errors
// that wraps [es.ErrInvalid]. After an error with which the outcome is unknown, call it again.
func (s *Store) Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (done es.Redaction, err error) {
	defer cause.Set(ctx, &err)
	if err := es.CheckRedaction(stream, version, reason); err != nil {
		return done, err
	}
	what := fmt.Sprintf("redact %s/%d", stream, version)
	tags := 0
	err = s.redacting(ctx, func(w *writer) (commit bool, err error) {
		e, err := w.redactable(stream, version)
		if err != nil {
			return false, err
		}
		tags = len(e.tags)
		if done.Audit, done.Repeated, err = w.redaction(stream, version); err != nil || done.Repeated {
			return false, err
		}
		return true, w.redact(&e, reason, s.id, &done)
	})
	if err != nil {
		return es.Redaction{}, s.within(ctx, what, err)
	}
	if s.inline != nil {
		_ = s.inline.CatchUp(ctx) // otherwise the next append does it, and gets the error
	}
	emptied := s.emptyLog(ctx)
	readers, err := s.readers(ctx)
	if err != nil {
		return done, s.within(ctx, what+": it is done, but who has read it is not known: call it again", err)
	}
	done.Unreached = append(readers.Unreached(tags),
		"bytes of the file that no row uses, written by an older release or by another program: run VACUUM once")
	if !emptied {
		done.Unreached = append(done.Unreached, "the write-ahead log, because a reader is at work: call Redact again")
	}
	return done, nil
}

// redacted is an event whose content is erased.
type redacted struct {
	stream            es.Stream
	version, audit    es.Version
	position, written es.Position
	tags              []string
}

// redactable looks up an event.
func (w *writer) redactable(stream es.Stream, version es.Version) (redacted, error) {
	e := redacted{stream: stream, version: version}
	head, err := w.selectHead(stream)
	if err != nil {
		return e, err
	}
	values := make([]driver.Value, 3)
	if _, err := w.step(selectRedactable, values, named([]driver.Value{stream.Kind, stream.ID, int64(version)})); err != nil {
		return e, err
	}
	position, _ := values[0].(int64)
	eventType, _ := values[1].(string)
	tags, _ := values[2].(string)
	e.audit, e.position, e.written, e.tags = head+1, es.Position(position), w.head+1, tag.Split(tags)
	if refusal := redaction.Refusal(int64(version), int64(head), eventType); refusal != "" {
		return e, fmt.Errorf("%w: %s", es.ErrInvalid, refusal)
	}
	return e, nil
}

// redaction returns the version of the record that says that an event was redacted, if it was.
func (w *writer) redaction(stream es.Stream, version es.Version) (audit es.Version, found bool, err error) {
	var row [1]int64
	found, err = w.query(selectRedaction, row[:], stream.Kind, stream.ID, int64(version))
	return es.Version(row[0]), found, err
}

// redact erases an event in the open transaction. The triggers that protect the history are absent in the meantime, for this connection alone.
func (w *writer) redact(e *redacted, reason, log string, done *es.Redaction) error {
	var checks [][2]string
	err := w.each(selectEventChecks, 2, func(values []driver.Value) {
		name, _ := values[0].(string)
		text, _ := values[1].(string)
		checks = append(checks, [2]string{name, text})
	})
	for _, c := range checks {
		if err == nil {
			_, err = w.conn.Exec("drop trigger "+c[0], nil)
		}
	}
	if err == nil {
		err = w.erase(e, reason, log, done)
	}
	for _, c := range checks {
		if err == nil {
			_, err = w.conn.Exec(c[1], nil)
		}
	}
	return err
}

func (w *writer) erase(e *redacted, reason, log string, done *es.Redaction) error {
	kind, id, version := e.stream.Kind, e.stream.ID, int64(e.version)
	now := max(w.time, time.Now().UnixMicro())
	text := tag.Join(e.tags)
	for _, step := range []struct {
		statement string
		args      []driver.Value
		changed   *int
	}{
		{redactEvent, []driver.Value{es.TypeRedacted, int64(e.position)}, nil},
		{insertTaggedEvents + taggedEventValues, []driver.Value{int64(e.written), kind, id, int64(e.audit), now, es.TypeRedaction, redaction.Data(version, reason), nil, text}, nil},
		{insertRedaction, []driver.Value{kind, id, version, int64(e.audit)}, nil},
		{deleteSnapshot, []driver.Value{kind, id}, &done.Snapshots},
		{redactParked, []driver.Value{es.TypeRedacted, kind, id, version, log}, &done.Parked},
		{redactErrors, []driver.Value{fmt.Sprintf("%s/%d", e.stream, e.version)}, nil},
	} {
		if err := w.run(step.statement, step.args...); err != nil {
			return err
		}
		if step.changed == nil {
			continue
		}
		var n [1]int64
		if _, err := w.query(countChanges, n[:]); err != nil {
			return err
		}
		*step.changed = int(n[0])
	}
	for _, t := range e.tags {
		if err := w.run(insertTag, w.hash(t), int64(e.written)); err != nil {
			return err
		}
	}
	var timers [1]int64
	if _, err := w.query(selectTimersOf, timers[:], int64(e.position), log); err != nil {
		return err
	}
	done.Timers, done.Audit = int(timers[0]), e.audit
	return nil
}

// redacting runs a function in a transaction of the writing connection, and commits if it says so.
func (s *Store) redacting(ctx context.Context, f func(w *writer) (commit bool, err error)) error {
	conn, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		c := driver.(*sqlite3.SQLiteConn)
		w := &s.writer
		defer w.forget() // the transaction wrote what the cache does not know
		err := w.ready(c)
		commits := false
		if err == nil {
			commits, err = f(w)
		}
		if err == nil && commits {
			err = s.commit(func() error {
				_, err := c.Exec("commit", nil)
				return err
			})
		}
		if err != nil || !commits {
			_, _ = c.Exec("rollback", nil) // the first error is the cause
		}
		return err
	})
}

// emptyLog empties the write-ahead log, which has what was erased. It reports false if a reader has kept it from doing so.
func (s *Store) emptyLog(ctx context.Context) bool {
	if s.log.name == "" {
		return true
	}
	s.log.trimming.Lock()
	defer s.log.trimming.Unlock()
	conn, err := s.writerConn(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()
	s.log.reading.Lock()
	defer s.log.reading.Unlock()
	busy, pages, moved := 1, 0, 0
	if _, err = conn.ExecContext(background, fmt.Sprintf("pragma busy_timeout = %d", busyUntilEmptied)); err == nil {
		err = conn.QueryRowContext(background, selectWALTruncated).Scan(&busy, &pages, &moved)
	}
	_, _ = conn.ExecContext(background, "pragma busy_timeout = 0")
	return err == nil && busy == 0
}

// readers returns what has read the log.
func (s *Store) readers(ctx context.Context) (r redaction.Readers, err error) {
	conn, err := s.reader(ctx)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	s.log.reading.RLock()
	defer s.log.reading.RUnlock()
	err = eachRow(ctx, conn, selectReaders, []any{s.id}, func(rows *sql.Rows) error {
		var name, kind string
		var version int
		if err := rows.Scan(&name, &version, &kind); err != nil {
			return err
		}
		r.Add(name, version, kind)
		return nil
	})
	if err == nil {
		err = eachRow(ctx, conn, selectRelays, nil, func(rows *sql.Rows) error {
			var lease string
			err := rows.Scan(&lease)
			r.Relays = append(r.Relays, strings.TrimPrefix(lease, "relay/"))
			return err
		})
	}
	return r, err
}

// eachRow runs a query and calls scan with each row.
func eachRow(ctx context.Context, conn *sql.Conn, query string, args []any, scan func(rows *sql.Rows) error) error {
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
