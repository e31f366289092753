-- Projections and reactions. Times are microseconds since 1970, UTC.
create table {schema}.projections (
	name       text    not null collate "C",
	version    bigint  not null,
	source     text    not null collate "C", -- its ID
	partitions bigint  not null, -- the number of shards of the source; 0 if it cannot be divided
	barrier    bigint  not null, -- where all shards stop before the number of partitions changes; -1 if none
	rebuild    boolean not null, -- whether a rebuild was requested
	primary key (name, version)
);

-- Every transaction of a shard updates its row. The fill factor leaves space for new versions of the row on its page, so that the index
-- need not change.
create table {schema}.shards (
	name      text    not null collate "C",
	version   bigint  not null,
	shard     text    not null collate "C",
	cursor    bigint  not null, -- the checkpoint
	time      bigint  not null, -- of the last record applied; 0 if none
	claim     bigint  not null, -- a random number of the holder, which it needs to move the checkpoint
	holder    text    not null collate "C", -- the worker; empty if none
	caught_up boolean not null, -- whether it has ever reached the end of the source
	at_end    boolean not null, -- whether its holder has reached it
	error     text    not null, -- of the last attempt; empty if it succeeded
	error_at  bigint  not null,
	primary key (name, version, shard)
) with (fillfactor = 25);

-- Workers hold shards. The shards of an expired worker are free.
create table {schema}.workers (
	name    text   not null collate "C",
	version bigint not null,
	worker  text   not null collate "C",
	expires bigint not null,
	primary key (name, version, worker)
) with (fillfactor = 25);

-- Records that failed and the later records of their streams, which wait.
create table {schema}.parked (
	name           text   not null collate "C",
	version        bigint not null,
	kind           text   not null collate "C",
	id             text   not null collate "C",
	stream_version bigint not null,
	position       bigint not null,
	time           bigint not null,
	type           text   not null collate "C",
	data           bytea  not null,
	meta           text   not null collate "C", -- a JSON object of strings; empty if none
	error          text   not null, -- empty for a record that waits
	attempts       bigint not null,
	at             bigint not null,
	shard          text   not null collate "C",
	request        text   not null collate "C", -- retry or drop; empty if none
	primary key (name, version, kind, id, stream_version)
);
