package migration_test

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/migration"
)

func set(files ...string) migration.Set {
	m := fstest.MapFS{"enter.sql": {Data: []byte("a part of other files")}}
	for _, name := range files {
		m[name] = &fstest.MapFile{Data: []byte(name)}
	}
	return migration.Set{Files: m, Version: 2}
}

// apply applies what is pending and returns the state of the database.
func apply(t *testing.T, m migration.Set, meta map[string]string) (ran []string, after map[string]string) {
	t.Helper()
	s, scripts, err := m.Pending(meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		ran, s = append(ran, script.SQL), script.To
	}
	return ran, s.Meta()
}

func TestReleasesOfOneVersionShareADatabase(t *testing.T) {
	older, newer := set("001.sql", "002.sql", "003.sql"), set("001.sql", "002.sql", "003.sql", "004.sql")
	ran, meta := apply(t, older, nil)
	if len(ran) != 3 || meta["schema"] != "2" || meta["expansion"] != "3" {
		t.Fatalf("an empty database ran %q and has %v", ran, meta)
	}
	if ran, meta = apply(t, newer, meta); len(ran) != 1 || ran[0] != "004.sql" || meta["schema"] != "2" || meta["expansion"] != "4" {
		t.Fatalf("the newer release ran %q, and the database has %v", ran, meta)
	}
	if ran, meta = apply(t, older, meta); len(ran) != 0 || meta["expansion"] != "4" {
		t.Errorf("the older release ran %q beside the newer, and the database has %v", ran, meta)
	}
}

func TestAReleaseWithoutExpansionsWroteOnlyItsVersion(t *testing.T) {
	ran, meta := apply(t, set("001.sql", "002.sql", "003.sql"), map[string]string{"schema": "1", "store": "x"})
	if len(ran) != 2 || ran[0] != "002.sql" || meta["schema"] != "2" || meta["expansion"] != "3" {
		t.Errorf("ran %q, and the database has %v", ran, meta)
	}
}

func TestADatabaseOfAnotherVersionIsRefused(t *testing.T) {
	for _, meta := range []map[string]string{
		{"schema": "3"}, {"schema": "3", "expansion": "9"}, // of a newer release
		{"schema": "two"}, {"schema": "0"}, {"schema": "-1"}, {"schema": "2", "expansion": "x"}, {"schema": "2", "expansion": "0"}, // corrupt
	} {
		if s, _, err := set("001.sql", "002.sql").Pending(meta); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("%v: %+v, %v; want ErrInvalid", meta, s, err)
		}
	}
}

func TestWithoutAVersionNothingWasApplied(t *testing.T) {
	if s, _, err := set("001.sql", "002.sql").Pending(map[string]string{"expansion": "2"}); err != nil || s != (migration.State{}) {
		t.Errorf("the state is %+v, %v", s, err)
	}
}
