-- A worker that does not know an event type lets go of the shard, for one that does.
alter table {schema}.workers add column lacks text not null default '' collate "C"; -- the event types that the worker does not know, as a JSON array; empty if none
alter table {schema}.shards add column needs text not null default '' collate "C"; -- an event type that a holder did not know; empty if none
alter table {schema}.shards add column needs_at bigint not null default -1; -- the checkpoint at that time
