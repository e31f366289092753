-- Tags of events. The text is as package internal/tag joins it; empty if there are none.
alter table es_events add column tags text not null default '';
-- The events of a tag, by the hash of the tag.
create table es_tags (
	hash     integer not null,
	position integer not null,
	primary key (hash, position)
) strict, without rowid;
-- Kinds of streams whose events have tags. Those up to position done have them; those behind it and up to upto may not.
-- With the first kind, a trigger es_untagged is created, which refuses further events of these kinds without tags.
create table es_tagged (
	kind text    not null primary key,
	done integer not null,
	upto integer not null
) strict, without rowid;
-- Tags can be added to an event that has none, and nothing else changes.
drop trigger es_events_update;
create trigger es_events_update before update of position, kind, id, version, time, type, data, meta on es_events
	begin select raise(abort, 'es_events: history is not changed'); end;
create trigger es_events_tags before update of tags on es_events when old.tags <> ''
	begin select raise(abort, 'es_events: history is not changed'); end;
