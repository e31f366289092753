package sqlite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/thalo-go/es/internal/cause"
)

// Backup writes a consistent copy of the database to a file that must not exist. Appends and reads continue in the meantime.
// The file appears under its name once the copy is complete and synced. The copy is a store with the same ID.
func (s *Store) Backup(ctx context.Context, path string) (err error) {
	defer cause.Set(ctx, &err)
	if err := s.backup(ctx, path); err != nil {
		return fmt.Errorf("sqlite: backup of %s to %s: %w", s.name, path, s.explain(err))
	}
	return nil
}

func (s *Store) backup(ctx context.Context, path string) error {
	if path == "" {
		return errors.New("the path is empty: give a file")
	}
	absolute, err := filepath.Abs(path) // SQLite does not treat file:x and :memory: as file names
	if err != nil {
		return err
	}
	if _, err := os.Lstat(absolute); err == nil {
		return errors.New("the file exists: give a new name")
	}
	partial := absolute + "." + rand.Text() + ".partial"
	err = s.vacuumInto(ctx, partial)
	if err == nil {
		err = syncFile(partial) // SQLite does not: https://www.sqlite.org/lang_vacuum.html#vacuuminto
	}
	if err == nil {
		err = os.Rename(partial, absolute)
	}
	if err != nil {
		_ = os.Remove(partial) // may not exist
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	return syncFile(filepath.Dir(absolute))
}

func (s *Store) vacuumInto(ctx context.Context, path string) error {
	conn, err := s.readerConn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if s.readOnly || s.read != s.write {
		if _, err := conn.ExecContext(ctx, "pragma query_only = off"); err != nil {
			return err
		}
		defer func() { _, _ = conn.ExecContext(background, "pragma query_only = on") }() // only sets a flag
	}
	_, err = conn.ExecContext(ctx, "vacuum into ?", path)
	return err
}

func syncFile(path string) error {
	flag := os.O_RDWR // required on Windows
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
