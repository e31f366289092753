-- What a projection is, kept with its checkpoints. The values of a row that only an older release has written are empty.
alter table {schema}.projections
	add column kind     text not null default '' collate "C", -- projection, inline or reaction
	add column filter   text not null default '' collate "C", -- in canonical form
	add column replaced text not null default '' collate "C", -- the filter before; its shards may replay what it left out
	add column prepares text not null default '' collate "C"; -- yes or no: whether there is a Prepare for a rebuild

alter table {schema}.shards
	add column filter   bigint not null default 0, -- a hash of the projection's filter; 0 if not known
	add column past     bigint not null default 0, -- up to here the records are replayed that a changed filter adds
	add column past_end bigint not null default 0, -- where that ends; 0 if nothing is replayed
	add column moved    bigint not null default 0; -- when the checkpoint moved; 0 if not known
