-- The identity of a reaction and its run, for the ids of its commands; empty if an older release ran it first.
alter table {schema}.projections add column identity text not null default '' collate "C";
