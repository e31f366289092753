-- A worker that does not know an event type lets go of the shard, for one that does.
alter table es_workers add column lacks text not null default ''; -- the event types that the worker does not know, as a JSON array; empty if none
alter table es_shards add column needs text not null default ''; -- an event type that a holder did not know; empty if none
alter table es_shards add column needs_at integer not null default -1; -- the checkpoint at that time
