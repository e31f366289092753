-- What the roles of a store in schema es may do: es_owner makes and migrates it, es_writer appends and reads, es_reader reads and follows.
--
-- Before, as a superuser, make the roles and the schema. The owner needs no right to make schemas:
--
--	create role es_owner login password '...';
--	create role es_writer login password '...';
--	create role es_reader login password '...';
--	create schema es authorization es_owner;
--
-- Then, as es_owner, run postgres.Migrate and this file: once, and again after an upgrade that migrates.

grant usage on schema es to es_writer, es_reader;

-- A writer adds. It has no right to change or delete an event, nor a command that took effect.
grant select on es.meta, es.history to es_writer;
grant select, insert on es.events, es.commands to es_writer;
grant select, insert, update on es.snapshots to es_writer; -- each takes the place of the one before
grant select, insert, delete on es.fences to es_writer;    -- they are in the way of calls that were given up, for a week
grant usage on sequence es.fences_number_seq to es_writer;
grant select, insert, update, delete on es.leases to es_writer;
grant select, insert, update on es.checkpoints to es_writer;
grant select, insert, update, delete on es.projections, es.shards, es.workers, es.parked to es_writer; -- what a read model writes to is granted apart
grant execute on all functions in schema es to es_writer;

grant select on es.meta, es.events, es.snapshots, es.leases, es.checkpoints, es.history to es_reader;
grant select on es.projections, es.shards, es.workers, es.parked to es_reader;
grant execute on function es.as_jsonb to es_reader; -- for es.history
