-- Records that a reaction handles later. A row belongs to the stream of its record, and so to any division of the streams.
create table es_timers (
	name           text    not null, -- of the reaction
	version        integer not null,
	due            integer not null, -- microseconds since 1970, UTC
	position       integer not null, -- of the record in the log of its source
	kind           text    not null,
	id             text    not null,
	stream_version integer not null,
	hash           integer not null, -- of the stream, as it is divided
	primary key (name, version, due, position)
) strict, without rowid;
alter table es_projections add column delays integer not null default 0; -- whether there may be timers
