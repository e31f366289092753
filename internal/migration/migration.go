// Package migration decides which migrations a database needs, for packages sqlite and postgres.
//
// A database has two numbers in its table of settings. Its version says which releases can use it: a release refuses a version above its
// own. Its expansion counts the migrations that were applied. A migration that only expands the tables, so that every statement of older
// releases keeps working, raises the expansion and leaves the version: releases of one version run side by side on one database.
// A later release removes what is no longer needed, and raises the version.
package migration

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/thalo-go/es"
)

// The keys of the two numbers.
const (
	KeyVersion   = "schema"
	KeyExpansion = "expansion"
)

// A Set is the migrations of a release: files named 001.sql, 002.sql and so on, to be applied in this order.
type Set struct {
	Files   fs.FS
	Folder  string // of the files; "" is the root
	Version int    // of a database with all migrations; up to it, each migration raises the version
}

// State is the two numbers of a database. The zero value is that of an empty one.
type State struct{ Version, Expansion int }

// Meta returns the rows of a state.
func (s State) Meta() map[string]string {
	return map[string]string{KeyVersion: strconv.Itoa(s.Version), KeyExpansion: strconv.Itoa(s.Expansion)}
}

// state returns the state that the rows of a database's table of settings describe. It returns an error for a database that this release
// cannot use.
func (m Set) state(meta map[string]string) (s State, err error) {
	if s.Version, err = number(meta, KeyVersion); err != nil {
		return State{}, err
	}
	if s.Expansion, err = number(meta, KeyExpansion); err != nil {
		return State{}, err
	}
	switch {
	case s.Version == 0:
		return State{}, nil // the backend finds out whether there are tables of its names
	case s.Version > m.Version:
		return State{}, fmt.Errorf("%w: schema version %d is of a newer release, and this one supports %d: upgrade this program", es.ErrInvalid, s.Version, m.Version)
	}
	s.Expansion = max(s.Expansion, s.Version) // releases before the first expansion wrote only the version
	return s, nil
}

// number returns a positive number, or 0 if its row is missing.
func number(meta map[string]string, key string) (int, error) {
	text, found := meta[key]
	if !found {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%w: %s version %q is not a positive number: the database is damaged, so restore a backup", es.ErrInvalid, key, text)
	}
	return n, nil
}

// A Script is a migration.
type Script struct {
	SQL string
	To  State // the state after it
}

// Pending returns the state that the rows of a database's table of settings describe, and the migrations that it needs. There are none if a
// newer release has expanded it further. Pending returns an error for a database that this release cannot use.
func (m Set) Pending(meta map[string]string) (s State, scripts []Script, err error) {
	if s, err = m.state(meta); err != nil {
		return s, nil, err
	}
	names, err := fs.Glob(m.Files, path.Join(m.Folder, "*.sql"))
	if err != nil {
		return s, nil, err
	}
	for _, name := range names { // Glob sorts them
		n, err := strconv.Atoi(strings.TrimSuffix(path.Base(name), ".sql"))
		if err != nil || n <= s.Expansion {
			continue // a part of other files, or applied
		}
		sql, err := fs.ReadFile(m.Files, name)
		if err != nil {
			return s, nil, err
		}
		scripts = append(scripts, Script{SQL: string(sql), To: State{Version: min(n, m.Version), Expansion: n}})
	}
	return s, scripts, nil
}
