-- Who works on something that one at a time should work on.
create table {schema}.leases (
	name   text        not null collate "C" primary key,
	holder text        not null collate "C",
	until  timestamptz not null,
	note   text        not null
);

-- How far readers of the log have come that keep their effects elsewhere.
create table {schema}.checkpoints (
	name     text   not null collate "C" primary key,
	position bigint not null
);
