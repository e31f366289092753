-- Read models and reactions: who reads the log, or another source, and how far each has come. Times are microseconds since 1970, UTC.
create table es_projections (
	name       text    not null,
	version    integer not null,
	source     text    not null, -- its ID
	partitions integer not null, -- into how many the source is to be divided; 0 if it cannot be
	barrier    integer not null, -- where all shards meet before they are divided anew; -1 if they need not
	rebuild    integer not null, -- whether somebody has asked for it
	primary key (name, version)
) strict, without rowid;

create table es_shards (
	name      text    not null,
	version   integer not null,
	shard     text    not null,
	cursor    integer not null, -- the checkpoint
	time      integer not null, -- of the last record applied; 0 if there is none
	claim     integer not null, -- whoever moves the checkpoint must know it; each holder has another
	holder    text    not null, -- the worker; empty if nobody is
	caught_up integer not null, -- whether it has come to the end of the source once
	at_end    integer not null, -- whether its holder has
	error     text    not null, -- of the last attempt; empty if it went well
	error_at  integer not null,
	primary key (name, version, shard)
) strict, without rowid;

-- Those who hold shards. What one holds that has expired is free.
create table es_workers (
	name    text    not null,
	version integer not null,
	worker  text    not null,
	expires integer not null,
	primary key (name, version, worker)
) strict, without rowid;

-- Records that could not be applied, and those of the same streams that wait behind them.
create table es_parked (
	name           text    not null,
	version        integer not null,
	kind           text    not null,
	id             text    not null,
	stream_version integer not null,
	position       integer not null,
	time           integer not null,
	type           text    not null,
	data           blob    not null,
	meta           text    not null, -- a JSON object of strings; empty if there is none
	error          text    not null, -- empty if it only waits
	attempts       integer not null,
	at             integer not null,
	shard          text    not null,
	request        text    not null, -- retry or drop, if somebody has asked for it
	primary key (name, version, kind, id, stream_version)
) strict, without rowid;
