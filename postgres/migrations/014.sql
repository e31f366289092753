-- Of a record that was published as several messages, each is parked on its own: part is the number of the message.
alter table {schema}.parked add column part bigint not null default 0,
	drop constraint parked_pkey, add primary key (name, version, kind, id, stream_version, part);
