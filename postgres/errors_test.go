package postgres_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// The error for an append that the server refused says that nothing was written, and gives a remedy. Other appends are not affected.
func TestErrorsOfTheServer(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		t.Run("a timeout while another holds the lock", func(t *testing.T) {
			for parameter, want := range map[string]string{"statement_timeout=100": "57014", "lock_timeout=100": "55P03"} {
				empty(t, url)
				other := open(t, url)
				s := open(t, with(url, parameter))
				release := holdLock(t, other, url)
				_, err := s.Append(t.Context(), at(account("a"), 0, 1))
				wantError(t, err, want, "nothing was written")
				release()
				mustAppend(t, s, at(account("a"), 0, 1))
			}
		})
		t.Run("a read-only database", func(t *testing.T) {
			empty(t, url)
			open(t, url)
			s := open(t, with(url, "default_transaction_read_only=on"))
			_, err := s.Append(t.Context(), at(account("a"), 0, 1))
			wantError(t, err, "25006", "primary")
			if got := len(dense(t, s)); got != 0 {
				t.Errorf("%d records were written", got)
			}
		})
		t.Run("a dropped schema", func(t *testing.T) {
			empty(t, url)
			s := open(t, url)
			mustAppend(t, s, at(account("a"), 0, 1))
			run(t, url, "drop schema es cascade")
			for name, do := range calls(t, s) {
				err := do()
				if err == nil || !strings.Contains(err.Error(), "run Migrate") {
					t.Errorf("%s: got %v, want the remedy", name, err)
				}
			}
		})
	})
}

func wantError(t testing.TB, err error, state, says string) {
	t.Helper()
	if code(err) != state || !strings.Contains(err.Error(), says) || errors.Is(err, es.ErrUnknownOutcome) {
		t.Errorf("got %v, want SQLSTATE %s and %q", err, state, says)
	}
}

// Appends fail while the disk is full, and succeed again once there is space.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{})
	folder := filepath.Join(filepath.Dir(server.Dir()), "small")
	owner, err := exec.CommandContext(t.Context(), "stat", "-c", "uid=%u,gid=%g", server.Dir()).Output()
	if err == nil {
		err = os.Mkdir(folder, 0o700)
	}
	if err == nil {
		err = exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=16m,mode=700,"+strings.TrimSpace(string(owner)), "tmpfs", folder).Run()
	}
	if err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := exec.Command("umount", "--lazy", folder).Run(); err != nil { // t.Context() has ended
			t.Errorf("umount: %v", err)
		}
	})
	url := server.Database(t)
	run(t, url, fmt.Sprintf("create tablespace small location '%s'", folder))
	s := open(t, with(url, "default_tablespace=small"))
	large := func() es.Append {
		return es.Append{Stream: account("large"), Expected: es.AnyVersion, Events: []es.Record{{Type: "t", Data: incompressible(1 << 20)}}}
	}
	written := 0
	for ; err == nil && written < 100; written++ {
		_, err = s.Append(t.Context(), large())
	}
	written--
	wantError(t, err, "53100", "free some space")
	if got := len(dense(t, s)); got != written || written < 5 {
		t.Errorf("%d appends succeeded and there are %d records", written, got)
	}
	if err := exec.CommandContext(t.Context(), "mount", "-o", "remount,size=64m", folder).Run(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, large())
	if got := len(dense(t, s)); got != written+1 {
		t.Errorf("there are %d records, want %d", got, written+1)
	}
}

// incompressible returns data that the server cannot compress.
func incompressible(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data) // has no error
	return data
}
