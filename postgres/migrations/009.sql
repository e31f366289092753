-- When a worker or a holder of a lease last said that it is there; 0 or null if a release before this did.
-- What expires too long after it was set before the clock was set back.
alter table {schema}.workers add column beat bigint not null default 0; -- microseconds since 1970
alter table {schema}.leases add column renewed timestamptz;
