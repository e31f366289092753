package engine

import (
	"fmt"
	"strings"
)

// live is the condition for a row of a worker whose lease has not expired. A heartbeat that was sent more than a lease from now was sent
// before the clock of the database was set back: a worker that still runs sends another soon, and one that is gone must not hold its shards
// until the clock gets there again. The column beat is 0 in rows of a release before it.
const live = "(w.expires > {now} and ((2 * w.beat) - w.expires) <= {now})"

// statements are the engine's, with the fragments of its database. The parameters $1 and $2 are the projection's name and version.
type statements struct {
	// A projection.
	insert, lock, describe, setPartitions, setBarrier, setRebuild, setIdentity, rebuilt, refilter, rename, forget string

	// Its shards.
	insertShard, lockShards, skipShards, countShards, deleteShards, describeShards, refilterShards, rewind, renameShards, take, release, move, movePast, fail, failAny, need string

	// The only shard of an inline projection.
	inline, moveInline string

	// Its workers.
	heartbeat, deleteWorker, alive, deleteWorkers, renameWorkers, lacks, allLacks string

	// Parked records.
	park, waiting, parkedOf, unpark, failParked, request, requests, parkedStreams, reshard, deleteParked, deleteBehind, renameParked, parked string

	// Timers.
	now, due, settle, timers, timerCounts, deleteTimers, timersBehind, renameTimers string
	enrol                                                                           func() []string // as in enrolments; built at the first use
	enrolAll                                                                        string          // any number, from arrays; empty where there are none

	// State, for workers, WaitFor and Status.
	state, cursors, status, last, holding string
}

const (
	thisProjection = " where name = $1 and version = $2"
	thisParked     = thisProjection + " and kind = $3 and id = $4 and stream_version = $5 and part = $6"
	headerColumns  = "p.kind, p.source, p.filter, p.replaced, p.prepares, p.partitions, p.barrier, p.rebuild, p.identity, p.delays"
	parkedColumns  = "name, version, kind, id, stream_version, position, time, type, data, meta, tags, part, error, attempts, at"
)

// partOf is the part of a hash, of a number of parts. A hash is unsigned, and stored as a signed number.
func partOf(hash, of string) string {
	return fmt.Sprintf("((((((%[1]s >> 1) & 9223372036854775807) %% %[2]s) * 2) + (%[1]s & 1)) %% %[2]s)", hash, of)
}

// inPart is the condition for a timer of part $3 of $4.
var inPart = partOf("hash", "$4") + " = $3"

// fromTimer is the condition for a timer that does not come before that of $5 and $6. An index keeps removed rows for a while: without it, each
// look would begin with all that have fired.
const fromTimer = " and (due, position) >= ($5, $6)"

const (
	enrolColumns    = "insert into {es}timers (name, version, due, position, kind, id, stream_version, hash) "
	enrolOnce       = " on conflict (name, version, due, position) do nothing"
	enrolParameters = 6 // of each row
)

// enrolmentOfArrays returns a statement that adds timers, with an array for each column.
func enrolmentOfArrays(d Dialect) string {
	return d.SQL(enrolColumns + `select $1, $2, t.due, t.position, t.kind, t.id, t.stream_version, t.hash
		from rows from (unnest($3::bigint[]), unnest($4::bigint[]), unnest($5::text[]), unnest($6::text[]), unnest($7::bigint[]), unnest($8::bigint[]))
		as t (due, position, kind, id, stream_version, hash)` + enrolOnce)
}

// enrolment returns a statement that adds a number of timers.
func enrolment(d Dialect, rows int) string {
	var text strings.Builder
	text.WriteString(enrolColumns + "values ")
	for row := range rows {
		if row > 0 {
			text.WriteString(", ")
		}
		text.WriteString("($1, $2")
		for i := range enrolParameters {
			fmt.Fprintf(&text, ", $%d", 3+row*enrolParameters+i)
		}
		text.WriteString(")")
	}
	text.WriteString(enrolOnce)
	return d.SQL(text.String())
}

func prepare(d Dialect) statements { //nolint:funlen // a list
	return statements{
		insert: d.SQL(`insert into {es}projections (name, version, source, partitions, barrier, rebuild, kind, filter, prepares, identity, delays)
			values ($1, $2, $3, $4, -1, false, $5, $6, $7, $8, $9) on conflict (name, version) do nothing`),
		lock:          d.SQL("select " + headerColumns + " from {es}projections p where p.name = $1 and p.version = $2 {lock}"),
		describe:      d.SQL("update {es}projections set kind = $3, filter = $4, prepares = $5, delays = delays or $6" + thisProjection),
		setPartitions: d.SQL("update {es}projections set partitions = $3" + thisProjection),
		setBarrier:    d.SQL("update {es}projections set barrier = $3" + thisProjection),
		setRebuild:    d.SQL("update {es}projections set rebuild = $3" + thisProjection),
		setIdentity:   d.SQL("update {es}projections set identity = $3" + thisProjection),
		rebuilt: d.SQL(`update {es}projections set rebuild = false, barrier = -1, source = $3, partitions = $4, kind = $5, filter = $6, replaced = '',
			prepares = $7` + thisProjection),
		refilter: d.SQL("update {es}projections set replaced = filter, filter = $3" + thisProjection),
		rename:   d.SQL("update {es}projections set name = $2 where name = $1"),
		forget:   d.SQL("delete from {es}projections" + thisProjection),

		insertShard: d.SQL(`insert into {es}shards (name, version, shard, cursor, time, claim, holder, caught_up, at_end, error, error_at, filter, moved)
			values ($1, $2, $3, $4, $5, $6, '', $7, false, '', 0, $8, {now}) on conflict (name, version, shard) do nothing`),
		lockShards:     d.SQL("select shard, cursor, time, caught_up, past_end from {es}shards" + thisProjection + " order by shard {lock}"),
		skipShards:     d.SQL("select shard, cursor, time, caught_up, past_end from {es}shards" + thisProjection + " order by shard {skip}"),
		countShards:    d.SQL("select count(*) from {es}shards" + thisProjection),
		deleteShards:   d.SQL("delete from {es}shards" + thisProjection),
		describeShards: d.SQL("update {es}shards set filter = $3" + thisProjection + " and filter = 0"),
		refilterShards: d.SQL(`update {es}shards set filter = $3, claim = $4, holder = '', at_end = false, past = 0,
			past_end = case when $5 then cursor else 0 end` + thisProjection),
		rewind: d.SQL(`update {es}shards set cursor = $3, time = 0, claim = $4, holder = '', at_end = false, error = '', error_at = 0, moved = {now},
			past = case when past < $3 then past else 0 end, past_end = case when past >= $3 then 0 when past_end > $3 then $3 else past_end end` + thisProjection),
		renameShards: d.SQL("update {es}shards set name = $2 where name = $1"),
		// A locked row belongs to a transaction of its holder in flight, which is as good as a heartbeat. It is skipped.
		take: d.SQL(`update {es}shards set holder = $4, claim = $5, at_end = false where (name, version, shard) = (
				select s.name, s.version, s.shard from {es}shards s where s.name = $1 and s.version = $2 and s.shard = $3 and s.claim = $6
				and (s.filter = 0 or s.filter = $7)
				and (s.holder = '' or s.holder = $4 or not exists (
					select 1 from {es}workers w where w.name = s.name and w.version = s.version and w.worker = s.holder and {live}))
				{skip})
			returning cursor, time, caught_up, past, past_end`),
		release: d.SQL("update {es}shards set holder = ''" + thisProjection + " and shard = $3 and claim = $4"),
		move: d.SQL(`update {es}shards set cursor = $6, time = $7, caught_up = caught_up or $8, at_end = at_end or $8, error = '', error_at = 0, moved = {now}` +
			thisProjection + " and shard = $3 and claim = $4 and cursor = $5"),
		movePast: d.SQL(`update {es}shards set past = case when $6 < past_end then $6 else 0 end, past_end = case when $6 < past_end then past_end else 0 end,
			error = '', error_at = 0, moved = {now}` + thisProjection + " and shard = $3 and claim = $4 and past = $5 and past_end > 0"),
		fail:    d.SQL("update {es}shards set error = $5, error_at = {now}" + thisProjection + " and shard = $3 and claim = $4"),
		need:    d.SQL("update {es}shards set needs = $5, needs_at = cursor" + thisProjection + " and shard = $3 and claim = $4"),
		failAny: d.SQL("update {es}shards set error = $4, error_at = {now}" + thisProjection + " and shard = $3"),

		inline: d.SQL(`select s.cursor, (select p.rebuild from {es}projections p where p.name = s.name and p.version = s.version),
				s.filter, s.past_end
			from {es}shards s where s.name = $1 and s.version = $2 and s.shard = '0/1' {lock}`),
		moveInline: d.SQL(`update {es}shards set cursor = $4, time = case when cast($5 as bigint) > 0 then cast($5 as bigint) else time end,
			caught_up = caught_up or $6, at_end = false, error = '', error_at = 0, moved = {now}` +
			thisProjection + " and shard = '0/1' and cursor = $3"),

		heartbeat: d.SQL(`insert into {es}workers (name, version, worker, expires, beat, lacks) values ($1, $2, $3, {now} + $4, {now}, $5)
			on conflict (name, version, worker) do update set expires = excluded.expires, beat = excluded.beat, lacks = excluded.lacks`),
		lacks:         d.SQL("select worker, lacks from {es}workers w" + thisProjection + " and {live}"),
		allLacks:      d.SQL("select name, version, lacks from {es}workers w where {live}"),
		deleteWorker:  d.SQL("delete from {es}workers" + thisProjection + " and worker = $3"),
		alive:         d.SQL("select count(*) from {es}workers w" + thisProjection + " and {live}"),
		deleteWorkers: d.SQL("delete from {es}workers" + thisProjection),
		renameWorkers: d.SQL("update {es}workers set name = $2 where name = $1"),

		park:    d.SQL("insert into {es}parked (" + parkedColumns + ", shard, request) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, {now}, $15, '')"),
		waiting: d.SQL("select distinct kind, id from {es}parked" + thisProjection + " and shard = $3"),
		parkedOf: d.SQL("select " + parkedColumns + ", request from {es}parked" + thisProjection +
			" and kind = $3 and id = $4 order by stream_version, part limit 1"),
		unpark:     d.SQL("delete from {es}parked" + thisParked),
		failParked: d.SQL("update {es}parked set error = $7, attempts = attempts + 1, at = {now}, request = ''" + thisParked),
		request: d.SQL("update {es}parked set request = $5" + thisProjection + ` and kind = $3 and id = $4 and (stream_version, part) =
			(select q.stream_version, q.part from {es}parked q where q.name = $1 and q.version = $2 and q.kind = $3 and q.id = $4
			order by q.stream_version, q.part limit 1)`),
		requests: d.SQL("select shard, kind, id from {es}parked" + thisProjection + " and request <> '' order by position"),

		parkedStreams: d.SQL("select distinct kind, id from {es}parked" + thisProjection),
		reshard:       d.SQL("update {es}parked set shard = $5" + thisProjection + " and kind = $3 and id = $4"),
		deleteParked:  d.SQL("delete from {es}parked" + thisProjection),
		deleteBehind:  d.SQL("delete from {es}parked" + thisProjection + " and position > $3"),
		renameParked:  d.SQL("update {es}parked set name = $2 where name = $1"),
		parked: d.SQL("select " + parkedColumns + ` from {es}parked
			where (name, version, position, kind, id, stream_version, part) > ($1, $2, $3, $4, $5, $6, $7)
			order by name, version, position, kind, id, stream_version, part limit $8`),

		now: d.SQL("select {now}"),
		// The time is read once, so that no timer becomes due between the two lists. Being in a subquery, it bounds the part of the index that is read.
		due: d.SQL(`with clock as materialized (select case when cast($7 as bigint) > 0 then cast($7 as bigint) else {now} end as now)
			select 0 as later, t.due, t.position, t.kind, t.id, t.stream_version from (
				select due, position, kind, id, stream_version from {es}timers` + thisProjection + fromTimer + ` and due <= (select now from clock)
				and ` + inPart + ` order by due, position limit $8) t
			union all select 1, n.due, 0, '', '', 0 from (
				select due from {es}timers` + thisProjection + ` and due > (select now from clock) and ` + inPart + ` order by due, position limit 1) n
			union all select 2, now, 0, '', '', 0 from clock`),
		settle: d.SQL("delete from {es}timers" + thisProjection + fromTimer + " and (due, position) <= ($7, $8) and " + inPart),
		timers: d.SQL("select due, position, kind, id, stream_version from {es}timers" + thisProjection +
			" and (due, position) > ($3, $4) order by due, position limit $5"),
		timerCounts: d.SQL(`select q.name, q.version, q.i, count(*), min(q.due) from (
				select t.name, t.version, t.due, ` + partOf("t.hash", "s.n") + ` as i
				from {es}timers t, (select name, version, count(*) as n from {es}shards group by name, version) s
				where s.name = t.name and s.version = t.version) q
			group by q.name, q.version, q.i`),
		deleteTimers: d.SQL("delete from {es}timers" + thisProjection),
		timersBehind: d.SQL("delete from {es}timers" + thisProjection + " and position > $3"),
		renameTimers: d.SQL("update {es}timers set name = $2 where name = $1"),

		state: d.SQL(`select ` + headerColumns + `,
				(select count(*) from {es}workers w where w.name = p.name and w.version = p.version and {live}),
				exists (select 1 from {es}parked q where q.name = p.name and q.version = p.version and q.request <> ''),
				s.shard, s.cursor, s.time, s.claim, s.at_end, s.holder, s.needs, s.past, s.past_end,
				exists (select 1 from {es}workers w where w.name = s.name and w.version = s.version and w.worker = s.holder and {live})
			from {es}projections p join {es}shards s on s.name = p.name and s.version = p.version
			where p.name = $1 and p.version = $2 order by s.shard`),
		last: d.SQL(`select coalesce(w.worker, ''), coalesce(w.beat, 0), s.moved
			from {es}shards s left join {es}workers w on w.name = s.name and w.version = s.version and w.worker = s.holder
			where s.name = $1 and s.version = $2 and s.shard = $3`),
		holding: d.SQL(d.Holding),
		cursors: d.SQL(`select p.version, p.kind, p.partitions, min(case when s.past_end > 0 then s.past else s.cursor end), sum(case when s.caught_up then 0 else 1 end), max(s.error)
			from {es}projections p join {es}shards s on s.name = p.name and s.version = p.version
			where p.name = $1 group by p.version, p.kind, p.partitions order by p.version desc`),
		status: d.SQL(`select s.name, s.version, s.shard, p.kind, p.source, p.filter,
				case when s.past_end > 0 then s.past else s.cursor end, s.time, s.caught_up, s.error, s.error_at, s.holder,
				case when s.needs_at = s.cursor then s.needs else '' end,
				exists (select 1 from {es}workers w where w.name = s.name and w.version = s.version and w.worker = s.holder and {live}),
				(select count(*) from {es}parked q where q.name = s.name and q.version = s.version and q.shard = s.shard),
				case when s.moved > 0 then ({now} - s.moved) else 0 end, p.delays
			from {es}shards s join {es}projections p on p.name = s.name and p.version = s.version
			order by s.name, s.version, s.shard`),
	}
}
