package postgres

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/redaction"
	"github.com/thalo-go/es/internal/tag"
)

// Redact erases the content of one event, and every copy that the schema has of it, in one transaction: its type becomes
// [es.TypeRedacted], and its data and metadata are removed; the snapshot of its stream is removed; in records that projections have parked
// the same is erased. Version, position, time and tags stay. A record of type [es.TypeRedaction] with the reason is appended to the stream:
// every Repo that meets it, in any process, drops what it knows and reads the stream from the beginning. A process that is about to save or
// park an older copy cannot do so any more.
//
// It needs the rights of the owner of the schema; a writer gets an error. No query returns the content afterwards, but its bytes stay in the
// files of the server until they are rewritten. The result says so, and names what cannot be reached.
//
// A second call changes nothing and reports Repeated. A version that the stream does not have, and a record of the store itself, are errors
// that wraps [es.ErrInvalid]. After an error with which the outcome is unknown, call it again.
func (s *Store) Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (done es.Redaction, err error) {
	defer cause.Set(ctx, &err)
	if err := es.CheckRedaction(stream, version, reason); err != nil {
		return done, err
	}
	what := fmt.Sprintf("redact %s/%d", stream, version)
	if s.config.ReadOnly {
		return done, fmt.Errorf("postgres: %s: %w", what, errReadOnly)
	}
	if err := s.refuseInHandler(ctx); err != nil {
		return done, fmt.Errorf("postgres: %s: %w", what, err)
	}
	var tags []string
	for done.Audit == 0 { // again if another call has changed the event since it was read
		e, err := s.redactable(ctx, stream, version)
		if err != nil {
			return es.Redaction{}, within(ctx, what, err)
		}
		tags = tag.Split(e.tags)
		if e.audit > 0 {
			done.Audit, done.Repeated = e.audit, true
			break
		}
		if done, err = s.redact(ctx, e, reason); err != nil {
			return es.Redaction{}, within(ctx, what, err)
		}
	}
	if !done.Repeated {
		s.watcher.announce()
		if s.inline != nil {
			_ = s.inline.CatchUp(ctx) // otherwise the next append does it, and gets the error
		}
	}
	readers, err := s.readers(ctx)
	if err != nil {
		return done, within(ctx, what+": it is done, but who has read it is not known: call it again", err)
	}
	done.Unreached = append(readers.Unreached(len(tags)),
		"bytes in the files of the server, until vacuum full rewrites the tables events, snapshots, parked, requests and answers",
		"the write-ahead log, until the server reuses or removes its files, and its archive")
	return done, nil
}

// prepareRedact makes the statements of Redact.
func (s *Store) prepareRedact() {
	s.statements.redactable = s.newStatement(`select (select h.version from {schema}.events h where h.kind = $1 and h.id = $2 order by h.version desc limit 1), e.type, e.tags, r.audit
		from (select $1::text as kind, $2::text as id, $3::bigint as version) q
		left join {schema}.events e on e.kind = q.kind and e.id = q.id and e.version = q.version
		left join {schema}.redactions r on r.kind = q.kind and r.id = q.id and r.version = q.version`)
	s.statements.redact = s.newStatement("select r.audit, r.snapshots, r.parked, r.timers from {schema}.redact($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) r")
	s.statements.readers = s.newStatement(`select p.name, p.version, p.kind, 1 from {schema}.projections p where p.source = $1
		union all select l.name, null::bigint, null::text, 2 from {schema}.leases l where starts_with(l.name, 'relay/')
		union select c.name, null::bigint, null::text, 2 from {schema}.checkpoints c where starts_with(c.name, 'relay/') and right(c.name, 7) <> '/filter' order by 4, 1, 2`)
}

// redactable is an event whose content may be erased.
type redactable struct {
	stream          es.Stream
	version         es.Version
	audit           es.Version // of the record that says that it was redacted; 0 if it was not
	eventType, tags string
}

// redactable looks up an event.
func (s *Store) redactable(ctx context.Context, stream es.Stream, version es.Version) (e redactable, err error) {
	e = redactable{stream: stream, version: version}
	var head int64
	err = s.once(ctx, s.each, s.statements.redactable, [][]byte{[]byte(stream.Kind), []byte(stream.ID), int8Param(int64(version))}, func(row [][]byte) error {
		if row[0] != nil {
			head = getInt8(row[0])
		}
		if row[3] != nil {
			e.audit = es.Version(getInt8(row[3]))
		}
		e.eventType, e.tags = string(row[1]), string(row[2])
		return nil
	})
	if err != nil {
		return e, err
	}
	if refusal := redaction.Refusal(int64(version), head, e.eventType); refusal != "" {
		return e, fmt.Errorf("%w: %s", es.ErrInvalid, refusal)
	}
	return e, nil
}

// redact erases an event. Audit is 0 if it is not as it was read.
func (s *Store) redact(ctx context.Context, e redactable, reason string) (done es.Redaction, err error) {
	var hashes array
	hashes.reset(oidInt8)
	for _, t := range tag.Split(e.tags) {
		hashes.int8(s.batch.tags.hash(t))
	}
	params := [][]byte{
		int8Param(rand.Int64N(math.MaxInt64 - 2*es.MaxEvents)), []byte(e.stream.Kind), []byte(e.stream.ID), int8Param(int64(e.version)),
		[]byte(e.eventType), []byte(e.tags), hashes.param(), redaction.Data(int64(e.version), reason),
		[]byte(s.id), fmt.Appendf(nil, "%s/%d", e.stream, e.version),
	}
	read := func(row [][]byte) error {
		if row[0] != nil {
			done.Audit = es.Version(getInt8(row[0]))
			done.Snapshots, done.Parked, done.Timers = int(getInt8(row[1])), int(getInt8(row[2])), int(getInt8(row[3]))
		}
		return nil
	}
	err = s.once(ctx, s.runner(), s.statements.redact, params, read)
	if s.setsIsolation(err) {
		err = s.once(ctx, s.runner(), s.statements.redact, params, read)
	}
	return done, err
}

// readers returns what has read the log.
func (s *Store) readers(ctx context.Context) (r redaction.Readers, err error) {
	err = s.once(ctx, s.each, s.statements.readers, [][]byte{[]byte(s.id)}, func(row [][]byte) error {
		if row[1] == nil {
			r.Relays = append(r.Relays, strings.TrimPrefix(string(row[0]), "relay/"))
		} else {
			r.Add(string(row[0]), int(getInt8(row[1])), string(row[2]))
		}
		return nil
	})
	return r, err
}
