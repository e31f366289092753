alter table {schema}.parked add column tags text not null default '' collate "C"; -- of the event, as package internal/tag joins them
