-- Events whose content was erased: the version of each, and that of the record of its stream that says so.
create table {schema}.redactions (
	kind    text   not null collate "C",
	id      text   not null collate "C",
	version bigint not null,
	audit   bigint not null,
	primary key (kind, id, version)
);

-- A process that had the content before must not write it afterwards: neither in a snapshot, nor as a parked record.
create function {schema}.refuse_redacted() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
	if exists (select from {schema}.redactions r where r.kind = new.kind and r.id = new.id and r.audit > new.version) then
		return null;
	end if;
	return new;
end $$;
create trigger redacted before insert or update on {schema}.snapshots for each row execute function {schema}.refuse_redacted();

create function {schema}.erase_parked() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
	if exists (select from {schema}.redactions r where r.kind = new.kind and r.id = new.id and r.version = new.stream_version)
		and exists (select from {schema}.projections p join {schema}.meta m on m.value = p.source
			where p.name = new.name and p.version = new.version and m.key = 'store')
	then
		new.type := 'es.redacted';
		new.data := '';
		new.meta := '';
		if new.error <> '' then
			new.error := 'erased';
		end if;
	end if;
	return new;
end $$;
create trigger redacted before insert on {schema}.parked for each row execute function {schema}.erase_parked();

-- redact erases the content of an event and its copies, and appends the record that says so. audit is the version of that record, or null if
-- the event is not as the caller has read it. The caller needs the rights for all that it changes, which a writer does not have.
--
-- The locks of the tables wait for those that are writing a copy, and let the others see the redaction.
create function {schema}.redact(tokens bigint, r_kind text, r_id text, r_version bigint, r_type text, r_tags text, r_hash bigint[], r_data bytea, log text, name text,
	out audit bigint, out snapshots bigint, out parked bigint, out timers bigint)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set lock_timeout = '10s' as $$
declare
	{declare}
	known bigint := 0;
	known_token bigint := 0;
	place bigint;
begin
	lock table {schema}.snapshots, {schema}.parked in share row exclusive mode;
	{enter}
	select e.position into place from {schema}.events e
	where e.kind = r_kind and e.id = r_id and e.version = r_version and e.type = r_type and e.tags = r_tags;
	if not found then
		return;
	end if;
	select e.version + 1 into audit from {schema}.events e where e.kind = r_kind and e.id = r_id order by e.version desc limit 1;
	perform set_config('es.change_history', 'on', true);
	update {schema}.events e set type = 'es.redacted', data = '', meta = '' where e.position = place;
	perform set_config('es.change_history', 'off', true);
	insert into {schema}.events (position, kind, id, version, time, type, data, meta, tags, token)
	values (before + 1, r_kind, r_id, audit, moment, 'es.redaction', r_data, json_build_object('role', session_user)::text, r_tags, tokens + 1);
	insert into {schema}.tags (hash, position) select t.hash, before + 1 from unnest(r_hash) as t (hash) on conflict do nothing;
	insert into {schema}.redactions (kind, id, version, audit) values (r_kind, r_id, r_version, redact.audit);
	delete from {schema}.snapshots s where s.kind = r_kind and s.id = r_id;
	get diagnostics snapshots = row_count;
	update {schema}.parked q set type = 'es.redacted', data = '', meta = '', error = case q.error when '' then '' else 'erased' end
	from {schema}.projections p
	where q.kind = r_kind and q.id = r_id and q.stream_version = r_version and p.name = q.name and p.version = q.version and p.source = log;
	get diagnostics parked = row_count;
	update {schema}.shards s set error = 'erased' where strpos(s.error, redact.name) > 0;
	select count(*) into timers from {schema}.timers t join {schema}.projections p on p.name = t.name and p.version = t.version
	where t.position = place and p.source = log;
end $$;

-- The record that says so has the tags of the redacted one, which may have none although its kind has them.
create or replace function {schema}.refuse_untagged() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
	if new.type <> 'es.redaction' and exists (select from {schema}.tagged x where x.kind = new.kind) then
		raise exception 'es: events of kind % have tags, and this one has none', new.kind
			using errcode = 'check_violation', hint = 'Give the codec that writes it its Tag function.';
	end if;
	return new;
end $$;

revoke all on function {schema}.refuse_redacted, {schema}.erase_parked, {schema}.redact from public;
