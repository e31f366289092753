-- Of a record that was published as several messages, each is parked on its own: part is the number of the message. The key of a table
-- cannot be changed, so the table is copied.
create table es_parked_in_parts (
	name           text    not null,
	version        integer not null,
	kind           text    not null,
	id             text    not null,
	stream_version integer not null,
	position       integer not null,
	time           integer not null,
	type           text    not null,
	data           blob    not null,
	meta           text    not null, -- a JSON object of strings; empty without metadata
	error          text    not null, -- empty for a later record of the stream
	attempts       integer not null,
	at             integer not null,
	shard          text    not null,
	request        text    not null, -- retry or drop, if requested; otherwise empty
	tags           text    not null default '', -- of the event, as package internal/tag joins them
	part           integer not null default 0,
	primary key (name, version, kind, id, stream_version, part)
) strict, without rowid;
insert into es_parked_in_parts (name, version, kind, id, stream_version, position, time, type, data, meta, error, attempts, at, shard, request, tags)
	select name, version, kind, id, stream_version, position, time, type, data, meta, error, attempts, at, shard, request, tags from es_parked;
drop table es_parked;
alter table es_parked_in_parts rename to es_parked;
