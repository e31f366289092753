-- Rights of the roles of a store in schema es. es_owner creates and migrates it, es_writer appends and reads, es_reader reads and follows.
--
-- First create the roles and the schema as a superuser. The owner needs no right to create schemas:
--
--	create role es_owner login password '...';
--	create role es_writer login password '...';
--	create role es_reader login password '...';
--	create schema es authorization es_owner;
--
-- Then run postgres.Migrate and this file as es_owner, and again after each upgrade that migrates the schema.

grant usage on schema es to es_writer, es_reader;

-- A writer can add events and commands, but not change or delete them.
grant select on es.meta, es.history to es_writer;
grant select, insert on es.events, es.commands, es.tags to es_writer;
grant select on es.tagged to es_writer; -- the functions tag_kind and add_tags change it, and fill in tags that older events lack
grant select, insert, update on es.snapshots to es_writer; -- each replaces the one before
grant select, insert, delete on es.fences to es_writer;    -- fences are kept for a week
grant usage on sequence es.fences_number_seq to es_writer;
grant select, insert, update, delete on es.leases to es_writer;
grant select, insert, update on es.checkpoints to es_writer;
grant select, insert, update, delete on es.projections, es.shards, es.workers, es.parked, es.timers to es_writer; -- grant the tables of read models separately
grant execute on all functions in schema es to es_writer;
-- Store.Redact is for the owner. A writer lacks the rights for what it changes, and does not get the function either.
revoke execute on function es.redact from es_writer;
grant select on es.redactions to es_writer, es_reader;

grant select on es.meta, es.events, es.tags, es.tagged, es.snapshots, es.leases, es.checkpoints, es.history to es_reader;
grant select on es.projections, es.shards, es.workers, es.parked, es.timers to es_reader;
grant execute on function es.as_jsonb to es_reader; -- for es.history
