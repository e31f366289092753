-- The events are both log and outbox. The writer that holds the lock assigns positions, so they are dense and in commit order.
-- The unique index protects the versions even from defects of the writer.
create table es_events (
	position integer primary key,
	kind     text    not null,
	id       text    not null,
	version  integer not null,
	time     integer not null, -- microseconds since 1970, UTC
	type     text    not null,
	data     blob    not null,
	meta     text              -- a JSON object of strings; null if empty
) strict;

create unique index es_events_stream on es_events (kind, id, version);

-- Commands with an ID that were applied.
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

-- Readers rely on records that they have read, so history must not change. To change it deliberately, drop the triggers.
create trigger es_events_update before update on es_events
begin select raise(abort, 'es_events: history is not changed'); end;
create trigger es_events_delete before delete on es_events
begin select raise(abort, 'es_events: history is not deleted'); end;
