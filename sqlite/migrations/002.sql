-- Exclusive work and its current holders.
create table es_leases (
	name   text    not null primary key,
	holder text    not null,
	until  integer not null, -- microseconds since 1970, UTC
	note   text    not null
) strict, without rowid;

-- Checkpoints of readers whose effects are stored elsewhere.
create table es_checkpoints (
	name     text    not null primary key,
	position integer not null
) strict, without rowid;
