-- Parts that migrations and functions share. Each part extends from its name to the next name. A change of a part needs a migration that
-- has {functions}, for the schemas that exist.

-- {lock}
-- After it has the lock, a call sees everything committed before only if each of its statements has its own snapshot.
if current_setting('transaction_isolation') <> 'read committed' then
	raise exception 'es: append needs a transaction at isolation level read committed, not %', current_setting('transaction_isolation')
		using errcode = 'ES001';
end if;
-- What is acknowledged must survive a crash, whatever the role or the database has set.
if current_setting('synchronous_commit') = 'off' then
	perform set_config('synchronous_commit', 'on', true);
end if;
perform pg_advisory_xact_lock({key});

-- {declare}
before bigint;       -- the last position
last_token bigint;   -- and the token of its record
moment timestamptz;
fenced boolean;

-- {enter}
{lock}
select e.position, e.token, e.time, exists (select from {schema}.fences f where f.token = tokens)
into before, last_token, moment, fenced from {schema}.events e order by e.position desc limit 1;
if not found then
	before := 0;
	fenced := exists (select from {schema}.fences f where f.token = tokens);
end if;
if fenced then
	raise exception 'es: this call of append was given up' using errcode = 'ES002';
end if;
if known < before and known > 0 then
	perform from {schema}.events e where e.position = known and e.token = known_token; -- a statement of its own, because a query within a condition is slow
	if not found then
		before := -1;
	end if;
elsif known > before or known > 0 and known_token <> last_token then
	before := -1;
end if;
moment := greatest(clock_timestamp(), moment); -- time does not run backwards along positions

-- {functions}
-- append_one writes a single event.
create or replace function {schema}.append_one(tokens bigint, known bigint, known_token bigint,
	e_kind text, e_id text, e_version bigint, e_type text, e_data bytea, e_meta text)
returns bigint language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
	{declare}
begin
	{enter}
	if before < 0 then
		return before;
	end if;
	begin
		insert into {schema}.events (position, kind, id, version, time, type, data, meta, token)
		values (before + 1, e_kind, e_id, e_version, moment, e_type, e_data, e_meta, tokens + 1);
	exception when unique_violation then
		return -2;
	end;
	return before;
end $$;

-- append_known writes a batch: events in the order of the appends, and the commands that have an id. e_meta is null if no event has metadata.
create or replace function {schema}.append_known(tokens bigint, known bigint, known_token bigint,
	e_kind text[], e_id text[], e_version bigint[], e_type text[], e_data bytea[], e_meta text[],
	c_kind text[], c_id text[], c_command text[], c_first bigint[], c_last bigint[])
returns bigint language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
	{declare}
begin
	{enter}
	if before < 0 then
		return before;
	end if;
	begin
		insert into {schema}.events (position, kind, id, version, time, type, data, meta, token)
		select before + e.n, e.kind, e.id, e.version, moment, e.type, e.data, coalesce(e.meta, ''), tokens + e.n
		from unnest(e_kind, e_id, e_version, e_type, e_data, e_meta) with ordinality as e (kind, id, version, type, data, meta, n);
		if c_command is not null then
			insert into {schema}.commands (kind, id, command, first, last)
			select * from unnest(c_kind, c_id, c_command, c_first, c_last);
		end if;
	exception when unique_violation then
		return -2;
	end;
	return before;
end $$;

-- append_judged looks up heads and commands, gives each append a verdict, and writes the accepted ones.
-- a_* describe the appends: their call (which is atomic), stream (index into s_*), expected version (-1 any), number of events, and
-- command (index into c_*, or 0). verdicts has for each append: 0 accepted, 1 conflict, 2 duplicate, 3 another append of its call failed.
-- firsts and lasts are the versions of its events or, for a duplicate, of those of the first time.
create or replace function {schema}.append_judged(tokens bigint, known bigint, known_token bigint,
	e_kind text[], e_id text[], e_version bigint[], e_type text[], e_data bytea[], e_meta text[],
	c_kind text[], c_id text[], c_command text[],
	s_kind text[], s_id text[],
	a_call integer[], a_stream integer[], a_expected bigint[], a_count integer[], a_command integer[],
	out start bigint, out verdicts integer[], out firsts bigint[], out lasts bigint[])
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
	{declare}
begin
	{enter}
	start := before;
	if before < 0 then
		return;
	end if;
	select j.verdicts, j.firsts, j.lasts, j.versions into verdicts, firsts, lasts, e_version
	from {schema}.judge(e_version, c_kind, c_id, c_command, s_kind, s_id, a_call, a_stream, a_expected, a_count, a_command) j;
	insert into {schema}.events (position, kind, id, version, time, type, data, meta, token)
	select before + row_number() over (order by e.n), e.kind, e.id, e.version, moment, e.type, e.data, coalesce(e.meta, ''), tokens + e.n
	from unnest(e_kind, e_id, e_version, e_type, e_data, e_meta) with ordinality as e (kind, id, version, type, data, meta, n)
	where e.version > 0;
	insert into {schema}.commands (kind, id, command, first, last)
	select c_kind[a_command[a.n]], c_id[a_command[a.n]], c_command[a_command[a.n]], firsts[a.n], lasts[a.n]
	from unnest(a_count) with ordinality as a (count, n)
	where a_command[a.n] > 0 and a.count > 0 and verdicts[a.n] = 0;
end $$;

-- resolve returns the events that a call of append has written, after its reply was lost. If there are none, it makes sure that none are
-- written later. The lock makes it wait for a call in progress; the fence rejects a call that arrives later.
--
-- resolve writes a fence also if it finds events. They may be committed on the primary alone, if the wait of their transaction for a
-- synchronous standby was cancelled. The commit of the fence waits for the standby, and so for what was committed before.
create or replace function {schema}.resolve(after bigint, first_token bigint, last_token bigint, out at bigint, out by bigint)
returns setof record language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
	{lock}
	return query select e.position, e.token from {schema}.events e
		where e.position > after and e.token between first_token and last_token order by e.position;
	delete from {schema}.fences f where f.token = first_token - 1; -- so that the transaction writes one even if it is there
	insert into {schema}.fences (token) values (first_token - 1) on conflict do nothing;
	delete from {schema}.fences f where f.time < now() - interval '7 days';
end $$;
