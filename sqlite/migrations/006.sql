-- When a worker or a holder of a lease last said that it is there: microseconds since 1970, UTC; 0 if a release before this did.
-- What expires too long after it was set before the clock was set back.
alter table es_workers add column beat integer not null default 0;
alter table es_leases add column renewed integer not null default 0;
