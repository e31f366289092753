-- Events whose content was erased: the version of each, and that of the record of its stream that says so.
create table es_redactions (
	kind    text    not null,
	id      text    not null,
	version integer not null,
	audit   integer not null,
	primary key (kind, id, version)
) strict, without rowid;

-- A process that had the content before must not write it afterwards: neither in a snapshot, nor as a parked record.
create trigger es_snapshots_redacted before insert on es_snapshots
when exists (select 1 from es_redactions r where r.kind = new.kind and r.id = new.id and r.audit > new.version)
begin select raise(ignore); end;

create trigger es_parked_redacted after insert on es_parked
when exists (select 1 from es_redactions r where r.kind = new.kind and r.id = new.id and r.version = new.stream_version)
	and exists (select 1 from es_projections p where p.name = new.name and p.version = new.version
		and p.source = (select value from es_meta where key = 'store'))
begin
	update es_parked set type = 'es.redacted', data = x'', meta = '', error = case error when '' then '' else 'erased' end
	where name = new.name and version = new.version and kind = new.kind and id = new.id and stream_version = new.stream_version;
end;
