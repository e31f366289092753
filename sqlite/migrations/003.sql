-- Projections and reactions, with the source that each reads and its checkpoints. Times are microseconds since 1970, UTC.
create table es_projections (
	name       text    not null,
	version    integer not null,
	source     text    not null, -- its ID
	partitions integer not null, -- requested number of shards; 0 if the source determines it
	barrier    integer not null, -- cursor at which all shards stop before they are repartitioned; -1 if none
	rebuild    integer not null, -- whether a rebuild was requested
	primary key (name, version)
) strict, without rowid;

create table es_shards (
	name      text    not null,
	version   integer not null,
	shard     text    not null,
	cursor    integer not null, -- the checkpoint
	time      integer not null, -- of the last record applied; 0 before the first
	claim     integer not null, -- token of the holder, required to move the checkpoint
	holder    text    not null, -- the worker; empty if none
	caught_up integer not null, -- whether the shard has reached the end of the source once
	at_end    integer not null, -- whether its holder has reached it
	error     text    not null, -- of the last attempt; empty if it succeeded
	error_at  integer not null,
	primary key (name, version, shard)
) strict, without rowid;

-- Workers that hold shards. The shards of an expired worker are free.
create table es_workers (
	name    text    not null,
	version integer not null,
	worker  text    not null,
	expires integer not null,
	primary key (name, version, worker)
) strict, without rowid;

-- Records that could not be applied, and later records of the same streams.
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
	meta           text    not null, -- a JSON object of strings; empty without metadata
	error          text    not null, -- empty for a later record of the stream
	attempts       integer not null,
	at             integer not null,
	shard          text    not null,
	request        text    not null, -- retry or drop, if requested; otherwise empty
	primary key (name, version, kind, id, stream_version)
) strict, without rowid;
