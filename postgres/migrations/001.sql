-- Placeholders in braces are replaced: the quoted name of the schema, and parts that functions share, from enter.sql.
-- The whole file runs in one transaction.

-- events is both the log and the outbox. Names compare byte by byte (collate "C"), which is also the fastest collation.
-- No column is null: rows without nulls need no bitmap and are eight bytes shorter.
create table {schema}.events (
	position bigint      not null primary key,
	kind     text        not null collate "C",
	id       text        not null collate "C",
	version  bigint      not null,
	time     timestamptz not null,
	type     text        not null collate "C",
	data     bytea       not null,
	meta     text        not null collate "C", -- a JSON object of strings; empty if there is none
	token    bigint      not null,             -- identifies the call of append that wrote it, to resolve a call whose reply was lost
	constraint events_stream unique (kind, id, version)
);

-- The applied commands that have an id.
create table {schema}.commands (
	kind    text   not null collate "C",
	id      text   not null collate "C",
	command text   not null collate "C",
	first   bigint not null, -- versions
	last    bigint not null,
	constraint commands_once primary key (kind, id, command)
);

create table {schema}.snapshots (
	kind     text   not null collate "C",
	id       text   not null collate "C",
	version  bigint not null,
	position bigint not null,
	schema   bigint not null, -- the program's number for the layout of its state
	data     bytea  not null,
	primary key (kind, id)
);

-- Abandoned calls of append. A fence rejects its call if it arrives late.
create table {schema}.fences (
	token  bigint      not null primary key,
	time   timestamptz not null default now(),
	number bigint      not null generated always as identity -- the current value of its sequence is visible to every snapshot
);
insert into {schema}.fences (token) values (0); -- so that the sequence has a value
delete from {schema}.fences;

-- Three functions append; they differ in what the client knows. A fourth way is a plain statement of the client, for a single event of a
-- process that has been the only writer for a while. All functions begin with the text of enter.sql, which takes the lock, finds the end
-- of the log and compares it with what the client knows. Positions are assigned under the lock, which is held to the end of the
-- transaction. So commit order is position order: a reader that has seen a position never finds a new record below it.
--
-- known and known_token are the highest position that the client has seen and the token of its record. If that record is the same,
-- everything below it is, and so are the heads of streams that the client knows.
--
-- append_one and append_known write events whose versions, as the client knows, continue their streams; the unique keys detect streams
-- that have grown. They return the position before the first event, -1 if the log is not the one that the client knows, or -2 if
-- a key existed, so that the client must look up heads and commands. With -1 and -2, nothing was written.
--
-- A session keeps the plans of a function. A plan made while the table is almost empty would scan the whole table, and still do so, with the
-- lock held, when the table is large. Without enable_seqscan only the indexes are used.

{functions}

-- judge returns the verdict on each append and the version of each event, or 0 for an event that is not written.
-- Scalar sub-selects look up heads and commands, each with one probe of an index.
create function {schema}.judge(
	e_version bigint[],
	c_kind text[], c_id text[], c_command text[],
	s_kind text[], s_id text[],
	a_call integer[], a_stream integer[], a_expected bigint[], a_count integer[], a_command integer[],
	out verdicts integer[], out firsts bigint[], out lasts bigint[], out versions bigint[])
language plpgsql as $$
declare
	heads bigint[];      -- of the streams, including what was accepted so far
	c_firsts bigint[];   -- of the commands that exist
	c_lasts bigint[];
	n integer := coalesce(cardinality(a_call), 0);
	i integer := 1;      -- the first append of a call
	j integer;
	stop integer;        -- the last one
	event integer := 0;  -- the number of events before
	next integer;
	good boolean;
	tentative bigint[];
begin
	heads := array(select coalesce((select e.version from {schema}.events e where e.kind = s.kind and e.id = s.id order by e.version desc limit 1), 0)
		from unnest(s_kind, s_id) with ordinality as s (kind, id, n) order by s.n);
	c_firsts := array(select (select x.first from {schema}.commands x where x.kind = c.kind and x.id = c.id and x.command = c.command limit 1)
		from unnest(c_kind, c_id, c_command) with ordinality as c (kind, id, command, n) order by c.n);
	c_lasts := array(select (select x.last from {schema}.commands x where x.kind = c.kind and x.id = c.id and x.command = c.command limit 1)
		from unnest(c_kind, c_id, c_command) with ordinality as c (kind, id, command, n) order by c.n);
	verdicts := array_fill(0, array[n]);
	firsts := array_fill(0::bigint, array[n]);
	lasts := array_fill(0::bigint, array[n]);
	versions := e_version;
	while i <= n loop
		stop := i;
		while stop < n and a_call[stop + 1] = a_call[i] loop
			stop := stop + 1;
		end loop;
		good := true;
		tentative := heads;
		for j in i .. stop loop
			if a_command[j] > 0 and c_firsts[a_command[j]] is not null then
				verdicts[j] := 2;
				firsts[j] := c_firsts[a_command[j]];
				lasts[j] := c_lasts[a_command[j]];
				good := false;
				exit;
			end if;
			if a_expected[j] >= 0 and a_expected[j] <> tentative[a_stream[j]] then
				verdicts[j] := 1;
				good := false;
				exit;
			end if;
			firsts[j] := tentative[a_stream[j]] + 1;
			tentative[a_stream[j]] := tentative[a_stream[j]] + a_count[j];
			lasts[j] := tentative[a_stream[j]];
		end loop;
		for j in i .. stop loop
			if not good and verdicts[j] = 0 then
				verdicts[j] := 3;
			end if;
			for next in 1 .. a_count[j] loop
				event := event + 1;
				versions[event] := case when good then firsts[j] + next - 1 else 0 end;
			end loop;
		end loop;
		if good then
			heads := tentative;
		end if;
		i := stop + 1;
	end loop;
end $$;

-- refuse protects the history: a reader must be able to rely on a record it has seen. It also refuses changes by the owner, who can allow
-- them for one transaction: set local es.change_history = 'on'.
create function {schema}.refuse() returns trigger language plpgsql as $$
begin
	if current_setting('es.change_history', true) = 'on' then
		return null;
	end if;
	raise exception 'es: % of % refused: history is not changed', lower(tg_op), tg_table_name
		using errcode = 'ES003', hint = 'If it must be, set local es.change_history = ''on'' first.';
end $$;

create trigger history before update or delete or truncate on {schema}.events for each statement execute function {schema}.refuse();

-- as_jsonb returns data as jsonb, or null if it is not JSON.
create function {schema}.as_jsonb(data bytea) returns jsonb language plpgsql immutable as $$
begin
	return convert_from(data, 'UTF8')::jsonb;
exception when others then
	return null;
end $$;

-- history is for psql: select * from history order by position desc limit 20.
create view {schema}.history as
select position, kind || '/' || id as stream, version, time, type,
	{schema}.as_jsonb(data) as data, nullif(meta, '')::jsonb as meta, length(data) as bytes
from {schema}.events;
