-- Group commit across processes. A process whose appends wait for those of others leaves its batch as a request, and then waits for the lock.
-- The process that gets the lock writes its own batch and the requests of others that it finds, each with a verdict of its own, in one
-- transaction. So all of them share one flush. See docs/decisions, and docs/operations.md for what an operator sees.
--
-- Both tables are unlogged: leaving a request writes no WAL and waits for no flush. A crash or a promotion empties them, and the callers find
-- out about their batches by token, as after any lost answer. No role has rights on the tables; the functions that use them are
-- security definer. Under the lock, requests change in the same transaction as events. Only leaving one needs no lock.
create unlogged table {schema}.requests (
	ticket      bigint      not null primary key,                           -- the token of its batch
	n           bigint      not null generated always as identity unique, -- in order of arrival; begins again after a crash
	xact        xid         not null, -- the transaction that left it. In a dump or a copy of the table it is not the row's, and the row is not served
	time        timestamptz not null,
	durable     text        not null, -- synchronous_commit of its caller
	weight      integer     not null, -- events
	known       bigint      not null, -- parameters of the functions that append
	known_token bigint      not null,
	e_kind text[], e_id text[], e_version bigint[], e_type text[], e_data bytea[], e_meta text[],
	c_kind text[], c_id text[], c_command text[], c_first bigint[], c_last bigint[],
	s_kind text[], s_id text[], -- null if append_known writes it
	a_call integer[], a_stream integer[], a_expected bigint[], a_count integer[], a_command integer[]
) with (toast_tuple_target = 8160, vacuum_truncate = off,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- Verdicts on requests that another process has served. start is the position before the first event, or a reason from the list at serve.
create unlogged table {schema}.answers (
	ticket   bigint not null primary key,
	n        bigint not null unique, -- of the request
	start    bigint not null,
	verdicts integer[],
	firsts   bigint[],
	lasts    bigint[]
) with (vacuum_truncate = off,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- The number of the round that was closed last; see serve. The current value of a sequence is visible to every snapshot.
create sequence {schema}.rounds;
select nextval(x.tableoid::regclass) from {schema}.rounds x;

revoke all on {schema}.requests, {schema}.answers, {schema}.rounds from public;

-- leave leaves a request.
create function {schema}.leave(tokens bigint, known bigint, known_token bigint,
	e_kind text[], e_id text[], e_version bigint[], e_type text[], e_data bytea[], e_meta text[],
	c_kind text[], c_id text[], c_command text[], c_first bigint[], c_last bigint[],
	s_kind text[], s_id text[],
	a_call integer[], a_stream integer[], a_expected bigint[], a_count integer[], a_command integer[])
returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	insert into {schema}.requests (ticket, xact, time, durable, weight, known, known_token,
		e_kind, e_id, e_version, e_type, e_data, e_meta, c_kind, c_id, c_command, c_first, c_last,
		s_kind, s_id, a_call, a_stream, a_expected, a_count, a_command)
	values (tokens, pg_current_xact_id()::xid, clock_timestamp(), current_setting('synchronous_commit'), coalesce(cardinality(e_kind), 0),
		known, known_token,
		e_kind, e_id, e_version, e_type, e_data, e_meta, c_kind, c_id, c_command, c_first, c_last,
		s_kind, s_id, a_call, a_stream, a_expected, a_count, a_command);
end $$;

-- write writes one request by the function that would write it directly, and returns its answer.
create function {schema}.write(r {schema}.requests, out start bigint, out verdicts integer[], out firsts bigint[], out lasts bigint[])
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
	if r.s_kind is null then
		start := {schema}.append_known(r.ticket, r.known, r.known_token, r.e_kind, r.e_id, r.e_version, r.e_type, r.e_data, r.e_meta,
			r.c_kind, r.c_id, r.c_command, r.c_first, r.c_last);
		return;
	end if;
	select j.start, j.verdicts, j.firsts, j.lasts into start, verdicts, firsts, lasts
	from {schema}.append_judged(r.ticket, r.known, r.known_token, r.e_kind, r.e_id, r.e_version, r.e_type, r.e_data, r.e_meta,
		r.c_kind, r.c_id, r.c_command, r.s_kind, r.s_id, r.a_call, r.a_stream, r.a_expected, r.a_count, r.a_command) j;
end $$;

-- serve returns the answer to a request. If it is not there yet, serve writes the request and others that lie there, or waits until another
-- process has done so.
--
-- The first process of a round holds the lock of the round, whose key is the number of the round, until its transaction has committed. The
-- others wait for that in shared mode, so that all of them go on at the same moment; the lock of all appends would be handed from one to the
-- next. The round is closed when its first process gets the lock of all appends. Who comes later belongs to the next round, whose first
-- process already waits for the lock while this one flushes. A key is not used again, so that none of them holds up a later round.
-- All this only decides who waits for whom: a call that finds no answer after its wait goes on to the next round.
--
-- start is as for the functions that append, or -3 if there is neither request nor answer, so that the caller must find out by token,
-- or -4 if writing the request failed while another process served it: it was removed, and its caller sends it directly to get its own error.
--
-- waited and held are microseconds: the wait for the lock, and the time with it. served is the number of other requests that were written,
-- or -1 if another process has written this one.
--
-- A call that finds its answer has written nothing, so its commit would not wait for a synchronous standby. The process that has written the
-- answer has waited, unless its wait was cancelled: then what it has written is visible, and a failover can lose it. So such a call writes a
-- message to the WAL, and its own commit waits.
--
-- Requests whose client knows the versions are written by one insert for all, if it succeeds. What is left is written one by one.
--
-- The limits on others bound the time that the lock is held, the subtransactions (two for each request; the server caches 64), and the dead
-- rows that the scan meets while a transaction elsewhere keeps them. An own request is outside all of them and without a guard: its error is
-- that of the call. An error of another request removes only that.
create function {schema}.serve(mine bigint, out start bigint, out verdicts integer[], out firsts bigint[], out lasts bigint[],
	out waited bigint, out held bigint, out served integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
	own {schema}.requests;
	r {schema}.requests;
	a record;
	came timestamptz := clock_timestamp();
	began timestamptz;
	round bigint;         -- that was closed last
	tickets bigint[];     -- of the requests that are written by one insert
	before bigint;        -- the last position
	moment timestamptz;
	answered boolean;
	there boolean;
	room integer := 4096; -- events
	tidy bigint;          -- what lies this far behind is removed
begin
	if current_setting('transaction_isolation') <> 'read committed' then -- each look needs a snapshot of its own
		raise exception 'es: append needs a transaction at isolation level read committed, not %', current_setting('transaction_isolation')
			using errcode = 'ES001';
	end if;
	held := 0;
	served := -1;
	loop
		select x.last_value, pg_try_advisory_xact_lock({round} + x.last_value + 1) into round, there from {schema}.rounds x;
		exit when there;
		there := pg_advisory_xact_lock_shared({round} + round + 1) is null; -- an expression is faster than a query
		-- In one snapshot, which has the request or its answer.
		select x.ticket is not null, x.start, x.verdicts, x.firsts, x.lasts, exists (select from {schema}.requests q where q.ticket = mine)
		into answered, start, verdicts, firsts, lasts, there
		from (values (mine)) m (ticket) left join {schema}.answers x on x.ticket = m.ticket;
		if answered or not there then
			if not answered then
				start := -3;
			elsif current_setting('synchronous_standby_names') <> '' then
				perform pg_logical_emit_message(true, 'es', '');
			end if;
			waited := (extract(epoch from clock_timestamp() - came) * 1000000)::bigint;
			return;
		end if;
		perform nextval(x.tableoid::regclass) from {schema}.rounds x where x.last_value = round; -- the first process failed before it closed it
	end loop;
	{lock}
	perform nextval(x.tableoid::regclass) from {schema}.rounds x where x.last_value = round;
	began := clock_timestamp();
	waited := (extract(epoch from began - came) * 1000000)::bigint;
	select q.* into own from {schema}.requests q where q.ticket = mine;
	if not found then
		-- Another process has written it, or it was withdrawn, since this call has looked.
		select x.start, x.verdicts, x.firsts, x.lasts into start, verdicts, firsts, lasts from {schema}.answers x where x.ticket = mine;
		if not found then
			start := -3;
		elsif current_setting('synchronous_standby_names') <> '' then
			perform pg_logical_emit_message(true, 'es', '');
		end if;
		return;
	end if;
	served := 0;
	start := null;
	select array_agg(p.ticket) into tickets from (
		select q.ticket, sum(q.weight) over (order by q.ticket <> mine, q.n) as total
		from {schema}.requests q
		where q.n between own.n - 256 and own.n + 256 and q.s_kind is null and q.weight > 0
			and (q.ticket = mine or q.xmin = q.xact and q.durable = own.durable
				and q.time between began - interval '5 s' and began + interval '1 s')
			and (q.known = 0 or (select e.token from {schema}.events e where e.position = q.known) = q.known_token)
			and (select f.token from {schema}.fences f where f.token = q.ticket) is null
		order by q.ticket <> mine, q.n limit 100) p
	where p.total <= room;
	if cardinality(tickets) > 1 then
		begin
			select e.position, e.time into before, moment from {schema}.events e order by e.position desc limit 1;
			before := coalesce(before, 0);
			moment := greatest(clock_timestamp(), moment);
			insert into {schema}.events (position, kind, id, version, time, type, data, meta, token)
			select before + row_number() over (order by q.n, e.n), e.kind, e.id, e.version, moment, e.type, e.data, coalesce(e.meta, ''), q.ticket + e.n
			from {schema}.requests q
			cross join lateral unnest(q.e_kind, q.e_id, q.e_version, q.e_type, q.e_data, q.e_meta) with ordinality as e (kind, id, version, type, data, meta, n)
			where q.ticket = any (tickets);
			insert into {schema}.commands (kind, id, command, first, last)
			select c.* from {schema}.requests q
			cross join lateral unnest(q.c_kind, q.c_id, q.c_command, q.c_first, q.c_last) as c
			where q.ticket = any (tickets) and q.c_command is not null;
			with gone as (delete from {schema}.requests q where q.ticket = any (tickets) returning q.ticket, q.n, q.weight),
				placed as (select g.ticket, g.n, g.weight, before + sum(g.weight) over (order by g.n) - g.weight as start from gone g),
				kept as (insert into {schema}.answers (ticket, n, start) select d.ticket, d.n, d.start from placed d where d.ticket <> mine on conflict do nothing)
			select count(*) filter (where d.ticket <> mine), max(d.n) filter (where d.n % 64 = 0), max(d.start) filter (where d.ticket = mine), room - sum(d.weight)
			into served, tidy, start, room from placed d;
		exception when others then
			start := null; -- one of them cannot be written
			served := 0;
			tidy := null;
			room := 4096;
		end;
	end if;
	if start is null then
		select w.start, w.verdicts, w.firsts, w.lasts into start, verdicts, firsts, lasts from {schema}.write(own) w;
		delete from {schema}.requests q where q.ticket = mine;
		if own.n % 64 = 0 then
			tidy := own.n;
		end if;
		room := room - own.weight;
	end if;
	for r in
		select * from {schema}.requests q
		where q.n between own.n - 256 and own.n + 256 and q.xmin = q.xact and q.durable = own.durable
			and q.time between began - interval '5 s' and began + interval '1 s'
		order by q.n limit 30
	loop
		room := room - r.weight;
		exit when room < 0 or clock_timestamp() > began + interval '20 ms';
		begin
			select w.start, w.verdicts, w.firsts, w.lasts into a from {schema}.write(r) w;
		exception when others then
			select -4::bigint as start, null::integer[] as verdicts, null::bigint[] as firsts, null::bigint[] as lasts into a;
		end;
		delete from {schema}.requests q where q.ticket = r.ticket;
		insert into {schema}.answers (ticket, n, start, verdicts, firsts, lasts)
		values (r.ticket, r.n, a.start, a.verdicts, a.firsts, a.lasts) on conflict do nothing;
		served := served + 1;
		if r.n % 64 = 0 then
			tidy := r.n;
		end if;
	end loop;
	if tidy is not null then
		delete from {schema}.answers x where x.n between tidy - 9216 and tidy - 8192;
		delete from {schema}.requests q where q.n between tidy - 9216 and tidy - 8192;
	end if;
	held := (extract(epoch from clock_timestamp() - began) * 1000000)::bigint;
end $$;

-- withdraw removes a request that was resolved as not written. Its fence alone prevents that it is written.
create function {schema}.withdraw(tokens bigint) returns void language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
	{lock}
	delete from {schema}.requests q where q.ticket = tokens;
end $$;

-- sweep removes what processes have left behind that are gone. It does nothing while the lock is taken.
create function {schema}.sweep() returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if pg_try_advisory_xact_lock({key}) then
		delete from {schema}.answers x where x.n < (select max(y.n) from {schema}.answers y) - 8192;
		delete from {schema}.requests q where q.time < clock_timestamp() - interval '1 minute';
	end if;
end $$;

revoke all on function {schema}.leave, {schema}.write, {schema}.serve, {schema}.withdraw, {schema}.sweep from public;
