-- The events are the log and the outbox in one. Positions are assigned by the one writer that holds the lock,
-- so they are dense and in commit order; the unique index is the last line of defence of the versions.
create table es_events (
	position integer primary key,
	kind     text    not null,
	id       text    not null,
	version  integer not null,
	time     integer not null, -- microseconds since 1970, UTC
	type     text    not null,
	data     blob    not null,
	meta     text              -- a JSON object of strings; null if there is none
) strict;

create unique index es_events_stream on es_events (kind, id, version);

-- The commands that took effect, for those that have an identity.
create table es_commands (
	kind    text    not null,
	id      text    not null,
	command text    not null,
	first   integer not null, -- versions
	last    integer not null,
	primary key (kind, id, command)
) strict, without rowid;

create table es_snapshots (
	kind     text    not null,
	id       text    not null,
	version  integer not null,
	position integer not null,
	schema   integer not null,
	data     blob    not null,
	primary key (kind, id)
) strict;

-- History is not changed: a reader that has seen a record must be able to rely on it. Drop the triggers to do it on purpose.
create trigger es_events_update before update on es_events
begin select raise(abort, 'es_events: history is not changed'); end;
create trigger es_events_delete before delete on es_events
begin select raise(abort, 'es_events: history is not deleted'); end;
