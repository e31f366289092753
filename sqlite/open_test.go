package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// refused fails the test unless Open returns an error with these texts and leaves no file open.
func refused(t *testing.T, path string, says ...string) {
	t.Helper()
	s, err := sqlite.Config{BusyTimeout: 50 * time.Millisecond}.Open(path)
	if err == nil {
		t.Errorf("%q was opened", path)
		_ = s.Close()
		return
	}
	for _, text := range append(says, path) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("opening %q: %v\nexpected it to say %q", path, err, text)
		}
	}
	if left := openFiles(t, path); path != "" && len(left) > 0 {
		t.Errorf("still open after %v: %q", err, left)
	}
}

func TestOpenTakes(t *testing.T) {
	t.Run("any file name", func(t *testing.T) {
		names := []string{"a?b#%20 ü.db", "100%.db", "?", "#", "&x=1", "a;b'c\"d.db", "file:x.db", "日本語", strings.Repeat("n", 200)}
		if runtime.GOOS == "windows" {
			names = []string{"a#%20 ü.db", "100%.db", "#", "&x=1", "日本語"}
		}
		for _, name := range names {
			path := filepath.Join(t.TempDir(), name)
			s := open(t, path)
			add(t, s, at("a", 0, "one"))
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if names := folder(t, path); len(names) != 1 || names[0] != name {
				t.Errorf("%q made the files %q", name, names)
			}
			expectTexts(t, open(t, path), "one")
		}
	})
	t.Run("relative path, resolved once", func(t *testing.T) {
		first, second := t.TempDir(), t.TempDir()
		t.Chdir(first)
		s := open(t, "es.db")
		t.Chdir(second)
		add(t, s, at("a", 0, "one"))
		expectTexts(t, open(t, filepath.Join(first, "es.db")), "one")
		if names := folder(t, filepath.Join(second, "es.db")); len(names) > 0 {
			t.Errorf("it made %q in the wrong folder", names)
		}
	})
	t.Run("empty file, and database with other tables", func(t *testing.T) {
		empty, other := file(t), file(t)
		if err := os.WriteFile(empty, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		tamper(t, other, "create table balances (id text primary key, cents integer); insert into balances values ('a', 5)")
		for _, path := range []string{empty, other} {
			s := open(t, path)
			add(t, s, at("a", 0, "one"))
			expectTexts(t, s, "one")
		}
		if cents := ask[int](t, connect(t, other), "select cents from balances"); cents != 5 {
			t.Errorf("the other table has %d", cents)
		}
	})
}

func TestOpen(t *testing.T) {
	t.Run("each database in memory is separate", func(t *testing.T) {
		one, two := open(t, ":memory:"), open(t, ":memory:")
		add(t, one, at("a", 0, "one"))
		expectTexts(t, one, "one")
		expectTexts(t, two)
		if one.ID() == two.ID() {
			t.Error("they have the same ID")
		}
	})
	t.Run("keeps the ID of a store", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		if again := open(t, path); again.ID() != s.ID() || s.ID() == "" || s.ID() == open(t, file(t)).ID() {
			t.Errorf("the IDs are %q and %q", s.ID(), again.ID())
		}
	})
	t.Run("concurrent calls create one store", func(t *testing.T) {
		path := file(t)
		ids := make([]string, 10)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				s, err := sqlite.Open(path)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = s.Close() })
				ids[i] = s.ID()
				if _, err = s.Append(t.Context(), at(fmt.Sprint(i), 0, "one")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(all(t, open(t, path))); n != len(ids) {
			t.Errorf("%d records; expected %d", n, len(ids))
		}
		for _, id := range ids {
			if id != ids[0] {
				t.Errorf("the IDs are %q", ids)
			}
		}
	})
	t.Run("changes nothing in a database that needs no migration", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		add(t, s, at("a", 0, "one"))
		witness := connect(t, path)
		before := ask[int](t, witness, "pragma data_version")
		open(t, path)
		if ask[int](t, witness, "pragma data_version") != before {
			t.Error("something was committed, which invalidates the caches of other processes")
		}
	})
}

func TestBusyTimeoutIsThatOfEveryConnection(t *testing.T) {
	for _, c := range []sqlite.Config{{BusyTimeout: 70 * time.Millisecond}, {BusyTimeout: 70 * time.Millisecond, ReadOnly: true}} {
		path := file(t)
		open(t, path)
		var milliseconds int
		if err := openWith(t, path, c).DB().QueryRowContext(t.Context(), "pragma busy_timeout").Scan(&milliseconds); err != nil || milliseconds != 70 {
			t.Errorf("a connection for reading waits %d ms, want 70: %v", milliseconds, err)
		}
	}
	path := file(t)
	open(t, path)
	do(t, connect(t, path), "begin immediate")
	if _, err := (sqlite.Config{BusyTimeout: 70 * time.Millisecond}).Open(path); !errors.Is(err, es.ErrUnavailable) || !strings.Contains(err.Error(), "for more than 70ms") {
		t.Errorf("opening a locked database: %v", err)
	}
}

func TestOpenRefusesNegativeSettings(t *testing.T) {
	for field, c := range map[string]sqlite.Config{"BusyTimeout": {BusyTimeout: -1}, "PollInterval": {PollInterval: -1}} {
		path := file(t)
		if _, err := c.Open(path); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "Config."+field) || len(folder(t, path)) > 0 {
			t.Errorf("%s: the error is %v, the folder has %q; want ErrInvalid with the name of the field", field, err, folder(t, path))
		}
	}
}

func TestOpenRefusesAFile(t *testing.T) {
	t.Run("no path", func(t *testing.T) { refused(t, "", "the path is empty: give a file, or :memory: instead") })
	t.Run("path with a NUL byte, where SQLite would stop reading", func(t *testing.T) {
		path := file(t)
		if _, err := sqlite.Open(path + "\x00.db"); err == nil || len(folder(t, path)) > 0 {
			t.Errorf("the error is %v, the folder has %q", err, folder(t, path))
		}
	})
	t.Run("a folder", func(t *testing.T) { refused(t, t.TempDir(), "it is a folder: give a file in it") })
	t.Run("a folder that does not exist", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "missing", "es.db")
		refused(t, path, "the folder must exist")
		_, err := sqlite.Open(path)
		expectError(t, err, fs.ErrNotExist)
	})
	t.Run("file that is not a database", func(t *testing.T) {
		for _, text := range []string{"a", "ab", strings.Repeat("x", 511), strings.Repeat("x", 512), strings.Repeat("Dear diary, ", 1000)} {
			path := file(t)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, path, "is not a database", "give another path, or move the file away")
			if string(contents(t, path)) != text {
				t.Error("the file was changed")
			}
		}
	})
	t.Run("file without write permission", func(t *testing.T) {
		unprivileged(t)
		path := file(t)
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "check the permissions of the file and of its folder")
	})
	t.Run("folder without write permission", func(t *testing.T) {
		unprivileged(t)
		path := file(t)
		if err := os.Chmod(filepath.Dir(path), 0o500); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(filepath.Dir(path), 0o700) }()
		refused(t, path, "check the permissions of the file and of its folder")
	})
	t.Run("file system without support for a write-ahead log", func(t *testing.T) {
		err := sqlite.Connect(sqlite.FileURI(filepath.ToSlash(file(t))) + "?vfs=unix-dotfile&rest=")
		if runtime.GOOS == "windows" {
			t.Skip("SQLite has no such file system here")
		}
		if err == nil || !strings.Contains(err.Error(), "write-ahead log") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestOpenRefusesADatabase(t *testing.T) {
	t.Run("database locked by another process", func(t *testing.T) {
		path := file(t)
		open(t, path)
		holder := connect(t, path)
		do(t, holder, "begin immediate")
		_, err := sqlite.Config{BusyTimeout: 50 * time.Millisecond}.Open(path)
		if !isCode(err, sqlite3.ErrBusy) || !strings.Contains(err.Error(), "another process holds the lock") {
			t.Errorf("the error is %v", err)
		}
		do(t, holder, "rollback")
	})
	t.Run("a database of a newer release", func(t *testing.T) {
		path := withMeta(t, "schema", "999")
		refused(t, path, "schema version 999", "upgrade this program")
		if version := ask[string](t, connect(t, path), "select value from es_meta where key = 'schema'"); version != "999" {
			t.Errorf("it has schema version %s now", version)
		}
	})
	t.Run("invalid schema version", func(t *testing.T) {
		for _, version := range []string{"", "two", "0", "-3", "1.5"} {
			refused(t, withMeta(t, "schema", version), fmt.Sprintf("schema version %q", version), "damaged", "restore a backup")
		}
	})
	t.Run("tables with the same names", func(t *testing.T) {
		path := file(t)
		tamper(t, path, "create table es_events (a)")
		refused(t, path, "migration 001.sql", "table es_events already exists")
	})
	t.Run("torn database", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		for v := range es.Version(300) {
			add(t, s, at("a", v, strings.Repeat("x", 1000)))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		data := contents(t, path)
		copy(data[4096:], bytes.Repeat([]byte{0xa5}, len(data)/2))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := sqlite.Open(path)
		if err == nil {
			defer s.Close()
			_, err = history(t.Context(), s)
		}
		if !isCode(err, sqlite3.ErrCorrupt) || !strings.Contains(err.Error(), "restore a backup") {
			t.Errorf("the error is %v", err)
		}
	})
}

func unprivileged(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("permissions do not bind this user")
	}
}

// withMeta returns a database with a changed entry of es_meta.
func withMeta(t *testing.T, key, value string) (path string) {
	t.Helper()
	path = file(t)
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	tamper(t, path, "update es_meta set value = ? where key = ?", value, key)
	return path
}

// tamper changes a database with SQL.
func tamper(t *testing.T, path, statements string, args ...any) {
	t.Helper()
	conn := connect(t, path)
	do(t, conn, statements, args...)
	if err := conn.Raw(func(driver any) error { return driver.(io.Closer).Close() }); err != nil {
		t.Fatal(err)
	}
}

func TestFileURI(t *testing.T) {
	for path, expected := range map[string]string{
		"/var/lib/es.db":           "file:///var/lib/es.db",
		"/a?b#%20 ü.db":            "file:///a%3Fb%23%2520%20%C3%BC.db",
		"C:/Users/Ann Lee/es.db":   "file:///C:/Users/Ann%20Lee/es.db",
		"//server/share/es.db":     "file:////server/share/es.db",
		"/a&vfs=x;y=z?mode=memory": "file:///a&vfs=x;y=z%3Fmode=memory",
	} {
		if found := sqlite.FileURI(path); found != expected {
			t.Errorf("%s: %s; expected %s", path, found, expected)
		}
	}
}

func TestDurablePragmas(t *testing.T) {
	s := open(t, file(t))
	add(t, s, at("a", 0, "one"))
	pragmas := func(conn *sqlite3.SQLiteConn) error {
		for pragma, expected := range map[string]any{
			"journal_mode":         "wal",
			"synchronous":          int64(2), // FULL: the log is synced at every commit
			"fullfsync":            int64(1),
			"checkpoint_fullfsync": int64(1),
			"locking_mode":         "normal",
		} {
			if found, err := value(conn, "pragma "+pragma); err != nil || found != expected {
				t.Errorf("%s is %v, %v; expected %v", pragma, found, err, expected)
			}
		}
		return nil
	}
	if err := s.OnWriter(pragmas); err != nil {
		t.Error(err)
	}
}

func TestDB(t *testing.T) {
	s := open(t, file(t))
	add(t, s, at("a", 0, "one", "two"))
	var n int
	if err := s.DB().QueryRowContext(t.Context(), "select count(*) from es_events").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d events, %v; expected 2", n, err)
	}
	if _, err := s.DB().ExecContext(t.Context(), "delete from es_snapshots"); !isCode(err, sqlite3.ErrReadonly) {
		t.Errorf("writing: %v", err)
	}
}

func TestHistoryIsNotChanged(t *testing.T) {
	path := file(t)
	s := open(t, path)
	add(t, s, at("a", 0, "one", "two"))
	conn := connect(t, path)
	for _, statement := range []string{
		"update es_events set data = x'00'",
		"update es_events set position = position + 10",
		"delete from es_events where version = 2",
		"delete from es_events",
		"update or replace es_events set position = 2",
	} {
		if _, err := conn.ExecContext(t.Context(), statement); !isCode(err, sqlite3.ErrConstraint) {
			t.Errorf("%s: %v", statement, err)
		}
	}
	expectTexts(t, s, "one", "two")
}

// A release that has not all migrations of another one works beside it, as long as both have the same schema version.
func TestOpenAcceptsAnExpansionOfANewerRelease(t *testing.T) {
	path := withMeta(t, "expansion", "999")
	s := open(t, path)
	add(t, s, at("a", 0, "one"))
	if expansion := ask[string](t, connect(t, path), "select value from es_meta where key = 'expansion'"); expansion != "999" {
		t.Errorf("the expansion is %s now", expansion)
	}
}
