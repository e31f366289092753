-- Tags of events. The text is as package internal/tag joins it; empty if there are none.
alter table {schema}.events add column tags text not null default '' collate "C";

-- The events of a tag, by the hash of the tag. Readers and conditions compare the tags themselves, so a collision of hashes changes no answer.
create table {schema}.tags (
	hash     bigint not null,
	position bigint not null,
	primary key (hash, position)
);

-- Kinds of streams whose events have tags. Those up to position done have them; those behind it and up to upto may not.
create table {schema}.tagged (
	kind text   not null collate "C" primary key,
	done bigint not null,
	upto bigint not null
);

-- refuse_untagged keeps a process of an older release, and a codec without tags, from writing events that conditions do not see.
create function {schema}.refuse_untagged() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if exists (select from {schema}.tagged x where x.kind = new.kind) then
		raise exception 'es: events of kind % have tags, and this one has none', new.kind
			using errcode = 'check_violation', hint = 'Give the codec that writes it its Tag function.';
	end if;
	return new;
end $$;

-- tag_kind notes that events of a kind have tags from now on. With the first kind it creates the trigger, so that logs without tags do
-- without it. The lock of the table, which creating the trigger needs, waits for all appends; the lock of appends would be held by a fast
-- path that waits for this one.
create function {schema}.tag_kind(tag_kind text) returns void language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set lock_timeout = '10s' as $$
begin
	perform from {schema}.tagged x where x.kind = tag_kind;
	if found then
		return;
	end if;
	lock table {schema}.events in share row exclusive mode;
	insert into {schema}.tagged (kind, done, upto)
	select tag_kind, 0, case when exists (select from {schema}.events e where e.kind = tag_kind)
		then (select e.position from {schema}.events e order by e.position desc limit 1) else 0 end
	on conflict do nothing;
	begin
		create trigger untagged before insert on {schema}.events for each row when (new.tags = '') execute function {schema}.refuse_untagged();
	exception when duplicate_object then
		null;
	end;
end $$;

-- add_tags gives older events their tags, and notes up to which position that is done. It changes no event that has tags.
create function {schema}.add_tags(tag_kind text, upto bigint, positions bigint[], texts text[], t_hash bigint[], t_position bigint[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
	perform set_config('es.change_history', 'on', true);
	update {schema}.events e set tags = a.tags from unnest(positions, texts) as a (position, tags), {schema}.tagged x
	where e.position = a.position and e.tags = '' and e.kind = tag_kind and x.kind = tag_kind and e.position <= x.upto;
	perform set_config('es.change_history', 'off', true);
	insert into {schema}.tags (hash, position) select * from unnest(t_hash, t_position) on conflict do nothing;
	update {schema}.tagged x set done = greatest(x.done, add_tags.upto) where x.kind = tag_kind;
end $$;

-- append_tagged is append_judged for batches in which an event has tags or an append has a condition. t_* are the tags: the event's number in
-- the batch, and the hash. q_* are the filters of conditions: the append, the position behind which no record may match, the hash of one tag,
-- a pattern for all tags, and the kinds and types, joined as tags are, or empty for any.
--
-- failed are the appends whose condition does not hold; they are judged as if they expected a version that cannot be, so that a repeated
-- command is a duplicate. lacking are those that cannot be judged, because events of the kind pending do not have their tags yet.
--
-- Scalar sub-selects with a limit keep the planner from joining whole tables. Each filter is one probe of a range of the index.
create function {schema}.append_tagged(tokens bigint, known bigint, known_token bigint,
	e_kind text[], e_id text[], e_version bigint[], e_type text[], e_data bytea[], e_meta text[], e_tags text[],
	c_kind text[], c_id text[], c_command text[],
	s_kind text[], s_id text[],
	a_call integer[], a_stream integer[], a_expected bigint[], a_count integer[], a_command integer[],
	t_event integer[], t_hash bigint[],
	q_append integer[], q_after bigint[], q_hash bigint[], q_tags text[], q_kinds text[], q_types text[],
	out start bigint, out verdicts integer[], out firsts bigint[], out lasts bigint[], out failed integer[], out lacking integer[], out pending text)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off as $$
declare
	{declare}
	n integer;
begin
	{enter}
	start := before;
	if before < 0 then
		return;
	end if;
	if q_append is not null then
		failed := array(select distinct q.append
			from unnest(q_append, q_after, q_hash, q_tags, q_kinds, q_types) as q (append, after, hash, tags, kinds, types)
			where q.after > before or (
				select true from {schema}.tags t
				where t.hash = q.hash and t.position > q.after and (
					select e.tags like q.tags
						and (q.kinds = '' or strpos(q.kinds, E'\x1f' || replace(replace(e.kind, '\', '\\'), E'\x1f', '\s') || E'\x1f') > 0)
						and (q.types = '' or strpos(q.types, E'\x1f' || replace(replace(e.type, '\', '\\'), E'\x1f', '\s') || E'\x1f') > 0)
					from {schema}.events e where e.position = t.position limit 1)
				limit 1));
		for pending in select x.kind from {schema}.tagged x where x.done < x.upto loop
			lacking := array(select distinct q.append from unnest(q_append, q_kinds) as q (append, kinds)
				where q.kinds = '' or strpos(q.kinds, E'\x1f' || replace(replace(pending, '\', '\\'), E'\x1f', '\s') || E'\x1f') > 0);
			exit when cardinality(lacking) > 0;
		end loop;
		foreach n in array failed || lacking loop
			a_expected[n] := 9223372036854775807;
		end loop;
	end if;
	select j.verdicts, j.firsts, j.lasts, j.versions into verdicts, firsts, lasts, e_version
	from {schema}.judge(e_version, c_kind, c_id, c_command, s_kind, s_id, a_call, a_stream, a_expected, a_count, a_command) j;
	with w as (
		insert into {schema}.events (position, kind, id, version, time, type, data, meta, tags, token)
		select before + row_number() over (order by e.n), e.kind, e.id, e.version, moment, e.type, e.data, coalesce(e.meta, ''), e.tags, tokens + e.n
		from unnest(e_kind, e_id, e_version, e_type, e_data, e_meta, e_tags) with ordinality as e (kind, id, version, type, data, meta, tags, n)
		where e.version > 0
		returning position, token)
	insert into {schema}.tags (hash, position)
	select t.hash, w.position from w join unnest(t_event, t_hash) as t (event, hash) on w.token = tokens + t.event
	on conflict do nothing;
	insert into {schema}.commands (kind, id, command, first, last)
	select c_kind[a_command[a.n]], c_id[a_command[a.n]], c_command[a_command[a.n]], firsts[a.n], lasts[a.n]
	from unnest(a_count) with ordinality as a (count, n)
	where a_command[a.n] > 0 and a.count > 0 and verdicts[a.n] = 0;
end $$;

revoke all on function {schema}.refuse_untagged, {schema}.tag_kind, {schema}.add_tags from public;
