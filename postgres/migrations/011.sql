-- Records that a reaction handles later. A row belongs to the stream of its record, and so to any division of the streams.
create table {schema}.timers (
	name           text   not null collate "C", -- of the reaction
	version        bigint not null,
	due            bigint not null, -- microseconds since 1970, UTC
	position       bigint not null, -- of the record in the log of its source
	kind           text   not null collate "C",
	id             text   not null collate "C",
	stream_version bigint not null,
	hash           bigint not null, -- of the stream, as it is divided
	primary key (name, version, due, position)
);
alter table {schema}.projections add column delays boolean not null default false; -- whether there may be timers
