-- Parts that the functions of 001.sql share. Each part extends from its name to the next name.

-- {lock}
-- After it has the lock, a call sees everything committed before only if each of its statements has its own snapshot.
if current_setting('transaction_isolation') <> 'read committed' then
	raise exception 'es: append needs a transaction at isolation level read committed, not %', current_setting('transaction_isolation')
		using errcode = 'ES001';
end if;
-- What is acknowledged must survive a crash, whatever the role or the database has set.
if current_setting('synchronous_commit') = 'off' then
	perform set_config('synchronous_commit', 'on', true);
end if;
perform pg_advisory_xact_lock({key});

-- {declare}
before bigint;       -- the last position
last_token bigint;   -- and the token of its record
moment timestamptz;
fenced boolean;

-- {enter}
{lock}
select e.position, e.token, e.time, exists (select from {schema}.fences f where f.token = tokens)
into before, last_token, moment, fenced from {schema}.events e order by e.position desc limit 1;
if not found then
	before := 0;
	fenced := exists (select from {schema}.fences f where f.token = tokens);
end if;
if fenced then
	raise exception 'es: this call of append was given up' using errcode = 'ES002';
end if;
if known < before and known > 0 then
	perform from {schema}.events e where e.position = known and e.token = known_token; -- a statement of its own, because a query within a condition is slow
	if not found then
		before := -1;
	end if;
elsif known > before or known > 0 and known_token <> last_token then
	before := -1;
end if;
moment := greatest(clock_timestamp(), moment); -- time does not run backwards along positions
