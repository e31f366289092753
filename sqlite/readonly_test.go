package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

func TestReadOnly(t *testing.T) {
	readOnly := sqlite.Config{ReadOnly: true}
	t.Run("reads existing records and new ones of other stores", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a?mode=rw#%20.db")
		writer := open(t, path)
		add(t, writer, at("a", 0, "one"))
		s := openWith(t, path, readOnly)
		if s.ID() != writer.ID() {
			t.Errorf("its id is %s, the store's %s", s.ID(), writer.ID())
		}
		expectTexts(t, s, "one")
		add(t, writer, at("a", 1, "two"))
		if head, err := s.Changed(t.Context(), 1); head != 2 || err != nil {
			t.Errorf("the log changed to %d, %v; want 2", head, err)
		}
		expectTexts(t, s, "one", "two")
	})
	t.Run("writes nothing", func(t *testing.T) {
		path := file(t)
		writer := open(t, path)
		add(t, writer, at("a", 0, "one"))
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s := openWith(t, path, readOnly)
		_, err = s.Append(t.Context(), at("a", 1, "two"))
		_, leaseErr := s.AcquireLease(t.Context(), "relay", "me", time.Second, "")
		_, moveErr := s.MoveCheckpoint(t.Context(), "relay", 0, 1)
		for _, err := range []error{
			err, s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream("a"), Version: 1}), leaseErr, s.ReleaseLease(t.Context(), "relay", "me"), moveErr,
			s.Rebuild(t.Context(), "balances", 0), s.Project(t.Context(), sqlite.Projection{Name: "p", Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}),
		} {
			if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "without Config.ReadOnly") {
				t.Errorf("writing: %v", err)
			}
		}
		expectTexts(t, s, "one")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		after, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(before, after) {
			t.Errorf("the file has changed: %v", err)
		}
	})
	t.Run("creates no database", func(t *testing.T) {
		for _, test := range []struct{ name, path, says string }{
			{"a file that is not there", file(t), "must exist"},
			{"memory", ":memory:", "cannot be read-only"},
			{"an empty file", filepath.Join(t.TempDir(), "empty.db"), "not an es database"},
		} {
			if strings.HasPrefix(filepath.Base(test.path), "empty") {
				if err := os.WriteFile(test.path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := readOnly.Open(test.path)
			if err == nil {
				_ = s.Close()
				t.Errorf("%s was opened", test.name)
			} else if !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v\nexpected it to say %q", test.name, err, test.says)
			}
			if info, err := os.Stat(test.path); err == nil && info.Size() > 0 {
				t.Errorf("%s has %d bytes now", test.name, info.Size())
			}
		}
	})
	t.Run("refuses an older schema and does not migrate it", func(t *testing.T) {
		path := file(t)
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		db := connect(t, path)
		before := ask[int](t, db, "select count(*) from es_meta")
		do(t, db, "delete from es_meta where key = 'schema'")
		if _, err := readOnly.Open(path); err == nil || !strings.Contains(err.Error(), "to migrate it") {
			t.Errorf("opening: %v", err)
		}
		if n := ask[int](t, db, "select count(*) from es_meta"); n != before-1 {
			t.Errorf("es_meta has %d rows now", n)
		}
	})
}
