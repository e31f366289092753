package engine

// statements are the engine's, with the fragments of its database. The parameters $1 and $2 are the projection's name and version.
type statements struct {
	// A projection.
	insert, lock, setPartitions, setBarrier, rebuild, rebuilt, forget string

	// Its shards.
	insertShard, lockShards, skipShards, countShards, deleteShards, take, release, move, fail, failAny string

	// The only shard of an inline projection.
	inline, moveInline string

	// Its workers.
	heartbeat, deleteWorker, alive, deleteWorkers string

	// Parked records.
	park, waiting, parkedOf, unpark, failParked, setRequest, requests, first, parkedStreams, reshard, deleteParked, parked string

	// State, for workers, WaitFor and Status.
	state, cursors, status string
}

const (
	thisProjection = " where name = $1 and version = $2"
	thisParked     = thisProjection + " and kind = $3 and id = $4 and stream_version = $5"
	parkedColumns  = "name, version, kind, id, stream_version, position, time, type, data, meta, error, attempts, at"
)

func prepare(d Dialect) statements {
	return statements{
		insert: d.SQL(`insert into {es}projections (name, version, source, partitions, barrier, rebuild) values ($1, $2, $3, $4, -1, false)
			on conflict (name, version) do nothing`),
		lock:          d.SQL("select source, partitions, barrier, rebuild from {es}projections" + thisProjection + " {lock}"),
		setPartitions: d.SQL("update {es}projections set partitions = $3" + thisProjection),
		setBarrier:    d.SQL("update {es}projections set barrier = $3" + thisProjection),
		rebuild:       d.SQL("update {es}projections set rebuild = true" + thisProjection),
		rebuilt:       d.SQL("update {es}projections set rebuild = false, barrier = -1, source = $3, partitions = $4" + thisProjection),
		forget:        d.SQL("delete from {es}projections" + thisProjection),

		insertShard: d.SQL(`insert into {es}shards (name, version, shard, cursor, time, claim, holder, caught_up, at_end, error, error_at)
			values ($1, $2, $3, $4, $5, $6, '', $7, false, '', 0) on conflict (name, version, shard) do nothing`),
		lockShards:   d.SQL("select shard, cursor, time, caught_up from {es}shards" + thisProjection + " order by shard {lock}"),
		skipShards:   d.SQL("select shard, cursor, time, caught_up from {es}shards" + thisProjection + " order by shard {skip}"),
		countShards:  d.SQL("select count(*) from {es}shards" + thisProjection),
		deleteShards: d.SQL("delete from {es}shards" + thisProjection),
		// A locked row belongs to a transaction of its holder in flight, which is as good as a heartbeat. It is skipped.
		take: d.SQL(`update {es}shards set holder = $4, claim = $5, at_end = false where (name, version, shard) = (
				select s.name, s.version, s.shard from {es}shards s where s.name = $1 and s.version = $2 and s.shard = $3 and s.claim = $6
				and (s.holder = '' or s.holder = $4 or not exists (
					select 1 from {es}workers w where w.name = s.name and w.version = s.version and w.worker = s.holder and w.expires > {now}))
				{skip})
			returning cursor, time, caught_up`),
		release: d.SQL("update {es}shards set holder = ''" + thisProjection + " and shard = $3 and claim = $4"),
		move: d.SQL(`update {es}shards set cursor = $6, time = $7, caught_up = caught_up or $8, at_end = at_end or $8, error = '', error_at = 0` +
			thisProjection + " and shard = $3 and claim = $4 and cursor = $5"),
		fail:    d.SQL("update {es}shards set error = $5, error_at = {now}" + thisProjection + " and shard = $3 and claim = $4"),
		failAny: d.SQL("update {es}shards set error = $4, error_at = {now}" + thisProjection + " and shard = $3"),

		inline: d.SQL(`select s.cursor, (select p.rebuild from {es}projections p where p.name = s.name and p.version = s.version)
			from {es}shards s where s.name = $1 and s.version = $2 and s.shard = '0/1' {lock}`),
		moveInline: d.SQL(`update {es}shards set cursor = $4, time = case when cast($5 as bigint) > 0 then cast($5 as bigint) else time end,
			caught_up = caught_up or $6, at_end = false, error = '', error_at = 0` +
			thisProjection + " and shard = '0/1' and cursor = $3"),

		heartbeat: d.SQL(`insert into {es}workers (name, version, worker, expires) values ($1, $2, $3, {now} + $4)
			on conflict (name, version, worker) do update set expires = excluded.expires`),
		deleteWorker:  d.SQL("delete from {es}workers" + thisProjection + " and worker = $3"),
		alive:         d.SQL("select count(*) from {es}workers" + thisProjection + " and expires > {now}"),
		deleteWorkers: d.SQL("delete from {es}workers" + thisProjection),

		park:    d.SQL("insert into {es}parked (" + parkedColumns + ", shard, request) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, {now}, $13, '')"),
		waiting: d.SQL("select distinct kind, id from {es}parked" + thisProjection + " and shard = $3"),
		parkedOf: d.SQL("select " + parkedColumns + ", request from {es}parked" + thisProjection +
			" and kind = $3 and id = $4 order by stream_version limit 1"),
		unpark:     d.SQL("delete from {es}parked" + thisParked),
		failParked: d.SQL("update {es}parked set error = $6, attempts = attempts + 1, at = {now}, request = ''" + thisParked),
		setRequest: d.SQL("update {es}parked set request = $6" + thisParked),
		requests:   d.SQL("select shard, kind, id from {es}parked" + thisProjection + " and request <> '' order by position"),
		first:      d.SQL("select stream_version from {es}parked" + thisProjection + " and kind = $3 and id = $4 order by stream_version limit 1"),

		parkedStreams: d.SQL("select distinct kind, id from {es}parked" + thisProjection),
		reshard:       d.SQL("update {es}parked set shard = $5" + thisProjection + " and kind = $3 and id = $4"),
		deleteParked:  d.SQL("delete from {es}parked" + thisProjection),
		parked: d.SQL("select " + parkedColumns + ` from {es}parked
			where (name, version, position, kind, id, stream_version) > ($1, $2, $3, $4, $5, $6)
			order by name, version, position, kind, id, stream_version limit $7`),

		state: d.SQL(`select p.source, p.partitions, p.barrier, p.rebuild,
				(select count(*) from {es}workers w where w.name = p.name and w.version = p.version and w.expires > {now}),
				exists (select 1 from {es}parked q where q.name = p.name and q.version = p.version and q.request <> ''),
				s.shard, s.cursor, s.claim, s.at_end, s.holder,
				exists (select 1 from {es}workers w where w.name = s.name and w.version = s.version and w.worker = s.holder and w.expires > {now})
			from {es}projections p join {es}shards s on s.name = p.name and s.version = p.version
			where p.name = $1 and p.version = $2 order by s.shard`),
		cursors: d.SQL(`select p.version, p.partitions, min(s.cursor), sum(case when s.caught_up then 0 else 1 end), max(s.error)
			from {es}projections p join {es}shards s on s.name = p.name and s.version = p.version
			where p.name = $1 group by p.version, p.partitions order by p.version desc`),
		status: d.SQL(`select s.name, s.version, s.shard, p.source, s.cursor, s.time, s.caught_up, s.error, s.error_at, s.holder,
				exists (select 1 from {es}workers w where w.name = s.name and w.version = s.version and w.worker = s.holder and w.expires > {now}),
				(select count(*) from {es}parked q where q.name = s.name and q.version = s.version and q.shard = s.shard)
			from {es}shards s join {es}projections p on p.name = s.name and p.version = s.version
			order by s.name, s.version, s.shard`),
	}
}
