-- The identity of a reaction and its run, for the ids of its commands; empty if an older release ran it first.
alter table es_projections add column identity text not null default '';
