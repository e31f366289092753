//go:build linux || darwin

package testserver_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/thalo-go/es/internal/test/testserver"
)

func TestMain(m *testing.M) {
	if how := os.Getenv("TESTSERVER_DIE"); how != "" {
		die(how)
	}
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		// These tests mostly wait for servers.
		if err := parallel.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	os.Exit(testserver.Run(m))
}

// die starts a server and ends this process without any cleanup.
func die(how string) {
	server, err := testserver.Launch(testserver.PostgresOptions{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("started", server.PID(), server.Port(), filepath.Dir(server.Dir()))
	switch how {
	case "panic":
		panic("requested by the test")
	case "paused":
		// Stopped processes receive no signal but SIGKILL until they are continued.
		for pid := range inFolder(filepath.Dir(server.Dir())) {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				panic(err)
			}
		}
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		panic(err)
	}
	if err := self.Kill(); err != nil {
		panic(err)
	}
	select {}
}

// rerun returns a command that runs this test binary with a changed environment.
func rerun(t *testing.T, environment []string, args ...string) *osexec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := osexec.CommandContext(t.Context(), binary, args...)
	c.Env = append(os.Environ(), environment...)
	return c
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	testserver.Postgres(t, testserver.Postgres18) // downloaded, or this test is skipped
	for _, how := range []string{"killed", "panic", "paused"} {
		t.Run("when the test process is "+how, func(t *testing.T) {
			t.Parallel()
			child := rerun(t, []string{"TESTSERVER_DIE=" + how, "ES_TEST_POSTGRES="})
			out, err := child.Output()
			if err == nil {
				t.Fatalf("the child did not fail")
			}
			var pid, port int
			var folder string
			if _, err := fmt.Sscan(strings.TrimPrefix(string(out), "started"), &pid, &port, &folder); err != nil {
				t.Fatalf("%v in %q", err, out)
			}
			eventually(t, "the postmaster has ended", func() bool { return gone(pid) })
			eventually(t, "its folder is removed", func() bool {
				_, err := os.Stat(folder)
				return errors.Is(err, os.ErrNotExist)
			})
			if left := inFolder(folder); len(left) > 0 {
				t.Errorf("still running: %v", left)
			}
			// The port can be listened on only if no process uses it.
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
			if err != nil {
				t.Fatalf("its port is in use: %v", err)
			}
			l.Close()
		})
	}
}

func TestNotRoot(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", server.PID()))
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if ids, ok := strings.CutPrefix(lines.Text(), "Uid:"); ok && strings.Contains(" "+strings.Join(strings.Fields(ids), " ")+" ", " 0 ") {
			t.Errorf("postgres runs as %s", ids)
		}
	}
}

func TestMissingServer(t *testing.T) {
	t.Parallel()
	testserver.Postgres(t, testserver.Postgres18)
	dead := "ES_TEST_POSTGRES=postgres://missing@127.0.0.1:1/none"
	cases := []struct {
		name        string
		environment []string
		args        []string
		fails       bool
		says        string
	}{
		{"is skipped with a reason", []string{dead, "ES_TEST_REQUIRE=", "CI="}, nil, false, "ES_TEST_POSTGRES: failed to connect"},
		{"fails where servers are required", []string{dead, "ES_TEST_REQUIRE=1", "CI="}, nil, true, "ES_TEST_POSTGRES: failed to connect"},
		{"fails in CI", []string{dead, "ES_TEST_REQUIRE=", "CI=true"}, nil, true, "ES_TEST_POSTGRES: failed to connect"},
		{"is not used in short mode", []string{dead, "ES_TEST_REQUIRE=1"}, []string{"-test.short"}, false, "run without -short"},
		{"names mvn if it is missing", []string{"PATH=" + filepath.Dir(lookPath(t, "xz")) + "/none:" + only(t, "xz"), "ES_TEST_CACHE=" + open(t), "ES_TEST_POSTGRES=", "ES_TEST_REQUIRE=", "CI="}, nil, false, "install Maven"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, err := rerun(t, c.environment, append(c.args, "-test.v", "-test.run=^TestEach$")...).CombinedOutput()
			if (err != nil) != c.fails || !bytes.Contains(out, []byte(c.says)) || !c.fails && !bytes.Contains(out, []byte("--- SKIP")) {
				t.Errorf("error %v, want an error: %v; the output should contain %q:\n%s", err, c.fails, c.says, out)
			}
		})
	}
}

func TestExternalServer(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: testserver.Postgres14, Settings: map[string]string{"log_statement": "ddl"}})
	named := []string{"ES_TEST_POSTGRES=" + server.URL("postgres"), "ES_TEST_REQUIRE=", "CI="}
	t.Run("is used", func(t *testing.T) {
		out, err := rerun(t, named, "-test.v", "-test.run=^(TestDatabase|TestEach)$").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestDatabase")) {
			t.Errorf("%v\n%s", err, out)
		}
		for _, statement := range []string{`create database "testdatabase_`, `drop database if exists "testdatabase_`} {
			if !strings.Contains(server.Log(), statement) {
				t.Errorf("its log has no %s:\n%s", statement, server.Log())
			}
		}
	})
	t.Run("is not stopped", func(t *testing.T) {
		out, err := rerun(t, named, "-test.v", "-test.run=^TestBackup$").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("not ours to stop")) {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func TestFetchTogether(t *testing.T) {
	t.Parallel()
	testserver.Postgres(t, testserver.Postgres18)
	cache := open(t)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			out, err := rerun(t, []string{"ES_TEST_CACHE=" + cache, "ES_TEST_POSTGRES=", "ES_TEST_REQUIRE=1"}, "-test.run=^TestNotRoot$").CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
}

// open returns a temporary folder that the server user can enter too.
func open(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	for _, closed := range []string{folder, filepath.Dir(folder)} {
		if err := os.Chmod(closed, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// only returns a folder for PATH with just this program.
func only(t *testing.T, name string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.Symlink(lookPath(t, name), filepath.Join(folder, name)); err != nil {
		t.Fatal(err)
	}
	return folder
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := osexec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	return path
}

// inFolder returns the processes that work in a folder or below it, with their command lines.
func inFolder(folder string) map[int]string {
	found := map[int]string{}
	// Glob fails only if the pattern is malformed.
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		at, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(at, folder+"/") {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			found[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	return found
}

func gone(pid int) bool {
	process, err := os.FindProcess(pid)
	if err != nil {
		return true
	}
	if err := process.Signal(syscall.Signal(0)); err != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}
