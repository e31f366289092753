package postgres

// statements are the prepared statements of a store.
type statements struct {
	appendOne, appendKnown, appendJudged *statement
	appendTagged                         *statement
	tagKind, taggedKind, addTags         *statement
	tagStart, tagged                     *statement
	leave, serve, withdraw, sweep        *statement
	resolve, pass, head, time, idle      *statement
	marks                                *statement
	appendNext, fences                   *statement
	stream, streams                      *statement
	all, at, kinds, types, both          *statement
	saveSnapshot, loadSnapshot           *statement
	acquireLease, loadLease              *statement
	releaseLease, listLeases             *statement
	loadCheckpoint                       *statement
	firstCheckpoint, moveCheckpoint      *statement
	notify                               *statement
	redactable, redact, readers          *statement
}

// The first columns that memory.record reads. The token is for the fingerprint; see heads. The last column is that of the tags.
const recordColumns = "e.position, e.version, e.time, e.type, e.data, e.meta, e.token"

// The columns of a record of any stream.
const logColumns = recordColumns + ", e.kind, e.id, e.tags"

func (s *Store) prepare() {
	s.statements = statements{
		appendOne:    s.newStatement("select {schema}.append_one($1, $2, $3, $4, $5, $6, $7, $8, $9)"),
		appendKnown:  s.newStatement("select {schema}.append_known($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"),
		appendJudged: s.newStatement("select start, verdicts, firsts, lasts from {schema}.append_judged($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"),

		// See tags.go.
		appendTagged: s.newStatement("select start, verdicts, firsts, lasts, failed, lacking, pending from {schema}.append_tagged($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)"),
		tagKind:      s.newStatement("select {schema}.tag_kind($1)"),
		taggedKind:   s.newStatement("select x.done, x.upto from {schema}.tagged x where x.kind = $1"),
		addTags:      s.newStatement("select {schema}.add_tags($1, $2, $3, $4, $5, $6)"),
		// The number of events of each tag after a position, up to 1,000, and then the kinds of which events lack their tags.
		tagStart: s.newStatement(`select h.hash, (select count(*) from (select from {schema}.tags t where t.hash = h.hash and t.position > $1 limit 1000) c), null::text
			from unnest($2::bigint[]) as h (hash)
			union all select 0::bigint, 0::bigint, x.kind from {schema}.tagged x where x.done < x.upto`),
		// The records of a span of the events of a tag, and in a last row the end of the log, and that of the span if there may be more. Limits
		// within the subqueries keep the planner from other indexes.
		tagged: s.newStatement("(select " + logColumns + `
				from (select t.position from {schema}.tags t where t.hash = $4 and t.position > $1 order by t.position limit $3) t
				cross join lateral (select * from {schema}.events x where x.position = t.position limit 1) e
				where e.tags ~~ $5 and ($6::text[] is null or e.kind = any ($6::text[])) and ($7::text[] is null or e.type = any ($7::text[])) order by e.position limit $2)
			union all (select h.position, null, null, null, null, null, (select s.last from (select max(x.position) as last, count(*) as n from (select t.position from {schema}.tags t where t.hash = $4 and t.position > $1 order by t.position limit $3) x) s where s.n = $3), null, null, null
				from (select position from {schema}.events order by position desc limit 1) h)`),

		// See combine.go.
		leave:    s.newStatement("select {schema}.leave($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)"),
		serve:    s.newStatement("select start, verdicts, firsts, lasts, waited, held, served from {schema}.serve($1)"),
		withdraw: s.newStatement("select {schema}.withdraw($1)"),
		sweep:    s.newStatement("select {schema}.sweep()"),

		// See soloWriter. The case expression makes sure that the lock is taken before the sequence is read; the planner may reorder conditions.
		appendNext: s.newStatement(`insert into {schema}.events (position, kind, id, version, time, type, data, meta, token)
			select e.position + 1, $6, $7, $8, greatest(clock_timestamp(), e.time), $9, $10, $11, $5
			from (select position, token, time from {schema}.events order by position desc limit 1) e
			where e.position = $1 and e.token = $2
				and case when pg_advisory_xact_lock({key}) is not null then pg_sequence_last_value($3::oid) = $4 end
				and case when current_setting('synchronous_commit') = 'off' then set_config('synchronous_commit', 'on', true) is not null else true end`),
		fences: s.newStatement(`select f.oid, pg_sequence_last_value(f.oid) from (select pg_get_serial_sequence($1, 'number')::regclass::oid as oid) f`),

		resolve: s.newStatement("select r.at, r.by from {schema}.resolve($1, $2, $3) r"),
		pass: s.newStatement(`select coalesce(max(e.position), 0), count(*), coalesce(bool_or(e.token >= $2 and e.token <= $3), false)
			from (select position, token from {schema}.events where position > $1 order by position limit $4) e`),
		head: s.newStatement("select position, token from {schema}.events order by position desc limit 1"),
		marks: s.newStatement(`select e.position, e.token from rows from (unnest($1::bigint[]), unnest($2::bigint[])) as a (p, t)
			join {schema}.events e on e.position = a.p and e.token = a.t`),
		idle: s.newStatement("select set_config('idle_in_transaction_session_timeout', $1, true)"),
		time: s.newStatement("select time from {schema}.events order by position desc limit 1"),

		// Beside the columns of the record, the token at the position of the fingerprint; see heads.
		stream: s.newStatement("select " + recordColumns + `, (select f.token from {schema}.events f where f.position = $5), e.tags from {schema}.events e
			where e.kind = $1 and e.id = $2 and e.version > $3 order by e.version limit $4`),
		// Many streams in one round trip. The lateral join forces the index, stream by stream and each in order. An order by clause would make the
		// server sort the sorted rows, a sixth of its work; sharedPages checks the order.
		streams: s.newStatement("select " + recordColumns + `, (select f.token from {schema}.events f where f.position = $5), q.n, e.tags
			from rows from (unnest($1::text[]), unnest($2::text[]), unnest($3::bigint[])) with ordinality as q (kind, id, after, n)
			cross join lateral (select * from {schema}.events e
				where e.kind = q.kind and e.id = q.id and e.version > q.after order by e.version limit $4) e`),

		all: s.newStatement("select " + logColumns + ` from {schema}.events e
			where e.position > $1 order by e.position limit $2`),
		// Records at any places in one round trip. The lateral join forces the index, place by place, whatever the planner thinks of the array.
		at: s.newStatement("select " + logColumns + ` from unnest($1::bigint[]) as q (position)
			cross join lateral (select * from {schema}.events e where e.position = q.position limit 1) e order by e.position`),
		kinds: s.filteredStatement("e.kind = any ($4::text[])"),
		types: s.filteredStatement("e.type = any ($4::text[])"),
		both:  s.filteredStatement("e.kind = any ($4::text[]) and e.type = any ($5::text[])"),

		// A newer snapshot is kept; see es.Snapshot.Newer.
		saveSnapshot: s.newStatement(`insert into {schema}.snapshots as s (kind, id, version, position, schema, data) values ($1, $2, $3, $4, $5, $6)
			on conflict (kind, id) do update set version = excluded.version, position = excluded.position, schema = excluded.schema, data = excluded.data
			where (excluded.schema, excluded.version) >= (s.schema, s.version)`),
		loadSnapshot: s.newStatement("select version, position, schema, data from {schema}.snapshots where kind = $1 and id = $2"),

		// clock_timestamp is read when the row is locked, not when the statement begins to wait for the lock.
		// A lease that was renewed more than its duration from now was renewed before the clock was set back.
		acquireLease: s.newStatement(`insert into {schema}.leases as l (name, holder, until, note, renewed)
			values ($1, $2, clock_timestamp() + ($3::bigint * interval '1 microsecond'), $4, clock_timestamp())
			on conflict (name) do update set holder = excluded.holder, until = clock_timestamp() + ($3::bigint * interval '1 microsecond'), note = excluded.note, renewed = clock_timestamp()
			where l.holder = excluded.holder or l.until <= clock_timestamp() or (l.renewed + (l.renewed - l.until)) > clock_timestamp() returning holder, until, note`),
		loadLease: s.newStatement(`select holder, until, note from {schema}.leases where name = $1 and until > clock_timestamp()
			and (renewed is null or (renewed + (renewed - until)) <= clock_timestamp())`),
		releaseLease: s.newStatement("delete from {schema}.leases where name = $1 and holder = $2"),
		listLeases:   s.newStatement("select holder, until, note, name from {schema}.leases order by name"),

		loadCheckpoint: s.newStatement("select position from {schema}.checkpoints where name = $1"),
		firstCheckpoint: s.newStatement(`insert into {schema}.checkpoints as c (name, position) values ($1, $2)
			on conflict (name) do update set position = excluded.position where c.position = 0 returning 1`),
		moveCheckpoint: s.newStatement("update {schema}.checkpoints set position = $2 where name = $1 and position = $3 returning 1"),

		// Listeners hold the lock in shared mode; if the exclusive lock is granted, there are none and NOTIFY is skipped. A notification need not
		// survive a crash, so its commit does not wait for the disk.
		notify: s.newStatement("select set_config('synchronous_commit', 'off', true), pg_notify($1, '') where not pg_try_advisory_xact_lock({listeners})"),
	}
}

// filteredStatement returns the statement that reads the records of a span of positions that a condition lets through, and in a last row the
// position of the last record of the log.
//
// The limit within the subquery keeps the planner from other indexes and from scanning more than the span. Positions have no gaps, so it is the
// number of positions.
func (s *Store) filteredStatement(condition string) *statement {
	return s.newStatement("(select " + logColumns + `
			from (select * from {schema}.events where position > $1 order by position limit $3) e where ` + condition + ` order by e.position limit $2)
		union all (select position, null, null, null, null, null, null, null, null, null from {schema}.events order by position desc limit 1)`)
}
