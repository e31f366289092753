-- Who works on something that one at a time should work on.
create table es_leases (
	name   text    not null primary key,
	holder text    not null,
	until  integer not null, -- microseconds since 1970, UTC
	note   text    not null
) strict, without rowid;

-- How far readers of the log have come that keep their effects elsewhere.
create table es_checkpoints (
	name     text    not null primary key,
	position integer not null
) strict, without rowid;
