package sqlite_test

import (
	"os"
	"testing"
	"time"
)

func TestOpenMigratesADatabaseOfTheFirstRelease(t *testing.T) {
	first, err := os.ReadFile("migrations/001.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := file(t)
	tamper(t, path, "create table es_meta (key text primary key, value text not null) strict, without rowid; "+
		"insert into es_meta (key, value) values ('schema', '1'), ('store', 'FIRST'); "+string(first)+
		"; insert into es_events (position, kind, id, version, time, type, data) values (1, 'account', 'a', 1, 5, 'happened', x'6f6e65')")
	s := open(t, path)
	expectTexts(t, s, "one")
	add(t, s, at("a", 1, "two"))
	if s.ID() != "FIRST" {
		t.Errorf("the ID is %q, want that of the database", s.ID())
	}
	if l, err := s.AcquireLease(t.Context(), "relay", "a", time.Hour, ""); err != nil || l.Holder != "a" {
		t.Errorf("the lease is %+v, %v", l, err)
	}
	expectTexts(t, open(t, path), "one", "two")
}
