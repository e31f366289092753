-- Transactions that append, or resolve an append, are durable when they are acknowledged: see enter.sql.
{functions}
