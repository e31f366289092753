-- Leases give one holder at a time the right to do something.
create table {schema}.leases (
	name   text        not null collate "C" primary key,
	holder text        not null collate "C",
	until  timestamptz not null,
	note   text        not null
);

-- Checkpoints of readers of the log that keep their effects elsewhere.
create table {schema}.checkpoints (
	name     text   not null collate "C" primary key,
	position bigint not null
);
