-- Read models and reactions: who reads the log, or another source, and how far each has come. Times are microseconds since 1970, UTC.
create table {schema}.projections (
	name       text    not null collate "C",
	version    bigint  not null,
	source     text    not null collate "C", -- its ID
	partitions bigint  not null, -- into how many the source is to be divided; 0 if it cannot be
	barrier    bigint  not null, -- where all shards meet before they are divided anew; -1 if they need not
	rebuild    boolean not null, -- whether somebody has asked for it
	primary key (name, version)
);

-- A row is changed by every transaction of its shard, and by few others: room on its page keeps it there, and the index as it is.
create table {schema}.shards (
	name      text    not null collate "C",
	version   bigint  not null,
	shard     text    not null collate "C",
	cursor    bigint  not null, -- the checkpoint
	time      bigint  not null, -- of the last record applied; 0 if there is none
	claim     bigint  not null, -- whoever moves the checkpoint must know it; each holder has another
	holder    text    not null collate "C", -- the worker; empty if nobody is
	caught_up boolean not null, -- whether it has come to the end of the source once
	at_end    boolean not null, -- whether its holder has
	error     text    not null, -- of the last attempt; empty if it went well
	error_at  bigint  not null,
	primary key (name, version, shard)
) with (fillfactor = 25);

-- Those who hold shards. What one holds that has expired is free.
create table {schema}.workers (
	name    text   not null collate "C",
	version bigint not null,
	worker  text   not null collate "C",
	expires bigint not null,
	primary key (name, version, worker)
) with (fillfactor = 25);

-- Records that could not be applied, and those of the same streams that wait behind them.
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
	meta           text   not null collate "C", -- a JSON object of strings; empty if there is none
	error          text   not null, -- empty if it only waits
	attempts       bigint not null,
	at             bigint not null,
	shard          text   not null collate "C",
	request        text   not null collate "C", -- retry or drop, if somebody has asked for it
	primary key (name, version, kind, id, stream_version)
);
