package testserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Tool returns a command for a program of PostgreSQL's packages: psql, pg_dump, pg_restore, pg_resetwal, pgbench. It
// runs as the user that owns the servers' data, so let it write to standard output rather than to a file. If the
// program is neither installed nor available from apt-get, the test is skipped or fails, as for a missing server.
func Tool(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	skipShort(t)
	from, err := installed(System)
	if err != nil {
		skipOrFail(t, err)
	}
	return from.command(name, args...)
}

// An installation is the programs of one release.
type installation struct {
	release   string // output of postgres --version
	bin       string
	libraries string // LD_LIBRARY_PATH, or empty
}

func (i installation) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(i.bin, name), args...)
	c.Dir, c.Env = "/", environment(i.libraries)
	// This fails only on systems where nothing can be installed.
	_ = runAsServerUser(c)
	return c
}

// installed returns the programs of a version and downloads them if necessary.
var installed = once(func(version Version) (installation, error) {
	found, err := find(version)
	if err == nil {
		var answer string
		answer, err = run(found.command("postgres", "--version"))
		found.release = strings.TrimSpace(answer)
	}
	if err != nil {
		return found, &unavailableError{fmt.Errorf("PostgreSQL %s: %w", version, err)}
	}
	return found, nil
})

func find(version Version) (installation, error) {
	if version != System {
		folder, err := cached("postgres-"+string(version), func(folder string) error { return fetchZonky(folder, string(version)) })
		return installation{bin: filepath.Join(folder, "bin")}, err
	}
	if bin := systemBin("/usr"); bin != "" {
		return installation{bin: bin}, nil
	}
	// Other distributions have one release, whose folder pg_config prints.
	if answer, err := run(exec.Command("pg_config", "--bindir")); err == nil && complete(strings.TrimSpace(answer)) {
		return installation{bin: strings.TrimSpace(answer)}, nil
	}
	folder, err := fetchDebian("postgresql")
	if err != nil {
		return installation{}, err
	}
	bin := systemBin(filepath.Join(folder, "usr"))
	if bin == "" {
		return installation{}, errors.New("the package postgresql has no complete server")
	}
	return installation{bin: bin, libraries: libraries(folder)}, nil
}

// systemBin returns the folder of the newest server of Debian's packages below root, or "".
func systemBin(root string) string {
	bins, err := filepath.Glob(filepath.Join(root, "lib/postgresql/*/bin"))
	if err != nil {
		return ""
	}
	bins = slices.DeleteFunc(bins, func(bin string) bool { return !complete(bin) })
	major := func(bin string) int {
		// A name that is not a number counts as the oldest.
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		return n
	}
	if len(bins) == 0 {
		return ""
	}
	return slices.MaxFunc(bins, func(a, b string) int { return major(a) - major(b) })
}

// complete reports whether a folder has server and client programs.
func complete(bin string) bool {
	for _, name := range []string{"postgres", "initdb", "pg_resetwal", "pg_dump", "pg_restore", "psql"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return false
		}
	}
	return true
}

// template returns a data folder as initdb creates it. The data folders of servers are copies, which take a tenth of
// the time. So all servers have the same system identifier.
var template = once(func(version Version) (string, error) {
	programs, err := installed(version)
	if err != nil {
		return "", err
	}
	release := strings.NewReplacer(" ", "-", "(", "", ")", "", "/", "-").Replace(programs.release)
	folder, err := cached("data-"+release, func(folder string) error {
		if err := chown(folder); err != nil {
			return err
		}
		secret := filepath.Join(folder, "password")
		if err := errors.Join(os.WriteFile(secret, []byte(password), 0o600), chown(secret)); err != nil {
			return err
		}
		_, err := run(programs.command("initdb", "--no-sync", "-D", filepath.Join(folder, "data"),
			"-U", superuser, "--pwfile", secret, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"))
		return err
	})
	if err != nil {
		return "", &unavailableError{fmt.Errorf("create a template of PostgreSQL %s: %w", version, err)}
	}
	return filepath.Join(folder, "data"), nil
})

// The superuser of every server that this package starts.
const (
	superuser = "postgres"
	password  = "test-only"
)
