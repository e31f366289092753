package postgres_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// Open waits until its context ends, which may be never. The log says so, and what it waits for.
func TestOpenLogsThatItWaits(t *testing.T) {
	t.Parallel()
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	lock := connect(t, url)
	if _, err := lock.Exec(t.Context(), "select pg_advisory_lock($1)", postgres.MigrationKey("es")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url   string
		texts []string
	}{
		"for a host that refuses connections":  {"postgres://bank@" + closed.Addr().String() + "/db", []string{"what=connection", "refused"}},
		"for a host that does not answer":      {"postgres://bank@" + silent.Addr().String() + "/db", []string{"what=connection"}},
		"for the migration of another program": {url, []string{`what="migration of the schema, perhaps by another process"`}},
	} {
		t.Run(name, func(t *testing.T) {
			log := new(logged.Text)
			ctx, cancel := context.WithCancel(t.Context())
			opened := make(chan error, 1)
			go func() {
				s, err := postgres.Config{Logger: log.Logger()}.Open(ctx, c.url)
				if err == nil {
					err = s.Close()
				}
				opened <- err
			}()
			eventually(t, "the log says that it waits", func() bool {
				text := log.String()
				for _, part := range c.texts {
					if !strings.Contains(text, part) {
						return false
					}
				}
				return strings.Contains(text, "waiting for the server")
			})
			if c.url != url {
				cancel()
				if err := <-opened; !errors.Is(err, context.Canceled) {
					t.Errorf("Open returned %v", err)
				}
				return
			}
			if _, err := lock.Exec(t.Context(), "select pg_advisory_unlock_all()"); err != nil {
				t.Fatal(err)
			}
			if err := <-opened; err != nil {
				t.Error(err)
			}
			cancel()
			if text := log.String(); !strings.Contains(text, "no longer waiting for the server") {
				t.Errorf("the log does not say that the wait is over:\n%s", text)
			}
		})
	}
}
