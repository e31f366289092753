-- Names in functions and views are those of the built-in schema, whatever the caller's search_path has: a role that may create functions
-- there would otherwise have its code run by writers, with their rights.
alter function {schema}.append_one set search_path = pg_catalog, pg_temp;
alter function {schema}.append_known set search_path = pg_catalog, pg_temp;
alter function {schema}.append_judged set search_path = pg_catalog, pg_temp;
alter function {schema}.judge set search_path = pg_catalog, pg_temp;
alter function {schema}.resolve set search_path = pg_catalog, pg_temp;
alter function {schema}.refuse set search_path = pg_catalog, pg_temp;
alter function {schema}.as_jsonb set search_path = pg_catalog, pg_temp;

-- A view keeps what its names meant when it was created.
create or replace view {schema}.history as
select position, kind || '/' || id as stream, version, time, type,
	{schema}.as_jsonb(data) as data, nullif(meta, '')::jsonb as meta, length(data) as bytes
from {schema}.events;
