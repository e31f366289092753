-- What a projection is, kept with its checkpoints. The values of a row that only an older release has written are empty.
alter table es_projections add column kind     text not null default ''; -- projection, inline or reaction
alter table es_projections add column filter   text not null default ''; -- in canonical form
alter table es_projections add column replaced text not null default ''; -- the filter before; its shards may replay what it left out
alter table es_projections add column prepares text not null default ''; -- yes or no: whether there is a Prepare for a rebuild

alter table es_shards add column filter   integer not null default 0; -- a hash of the projection's filter; 0 if not known
alter table es_shards add column past     integer not null default 0; -- up to here the records are replayed that a changed filter adds
alter table es_shards add column past_end integer not null default 0; -- where that ends; 0 if nothing is replayed
alter table es_shards add column moved    integer not null default 0; -- when the checkpoint moved; 0 if not known
