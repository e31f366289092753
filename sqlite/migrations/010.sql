alter table es_parked add column tags text not null default ''; -- of the event, as package internal/tag joins them
