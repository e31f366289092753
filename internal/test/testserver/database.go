package testserver

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Database creates an empty database for a test and returns its URL. The database is dropped when the test ends,
// together with its remaining connections.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := databaseName(t.Name())
	quoted := pgx.Identifier{name}.Sanitize()
	if err := s.exec("create database " + quoted); err != nil {
		t.Fatalf("testserver: create a database: %v", err)
	}
	t.Cleanup(func() {
		if s.url == "" && !s.shared {
			return // removed with its server, which may be stopped
		}
		if err := s.exec("drop database if exists " + quoted + " with (force)"); err != nil {
			t.Errorf("testserver: drop the database: %v", err)
		}
	})
	return s.URL(name)
}

// databaseName returns a unique name that shows which test the database belongs to.
func databaseName(test string) string {
	const most = 36 // of the 63 bytes of a name
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(test))
	return readable[:min(len(readable), most)] + "_" + strings.ToLower(rand.Text())
}
