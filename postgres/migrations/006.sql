-- Transactions that append, or resolve an append, are durable when they are acknowledged: see enter.sql. Otherwise these are the functions
-- of 001.sql, where they are explained.

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
