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
		// These tests wait for servers most of the time.
		if err := parallel.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0))); err != nil {
			panic(err)
		}
	}
	os.Exit(testserver.Run(m))
}

// die starts a server and ends this process in one of the ways in which nothing gets cleaned up.
func die(how string) {
	server, err := testserver.Launch(testserver.PostgresOptions{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("started", server.PID(), server.Port(), filepath.Dir(server.Dir()))
	switch how {
	case "panic":
		panic("as told")
	case "paused":
		// Halted processes take no signal but SIGKILL until they go on.
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

// again returns a command that runs this test binary with a changed environment.
func again(t *testing.T, environment []string, args ...string) *osexec.Cmd {
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
	testserver.Postgres(t, testserver.Postgres18) // fetched, or this test is skipped
	for _, how := range []string{"killed", "panic", "paused"} {
		t.Run("when the test process is "+how, func(t *testing.T) {
			t.Parallel()
			child := again(t, []string{"TESTSERVER_DIE=" + how, "ES_TEST_POSTGRES="})
			out, err := child.Output()
			if err == nil {
				t.Fatalf("it did not die")
			}
			var pid, port int
			var folder string
			if _, err := fmt.Sscan(strings.TrimPrefix(string(out), "started"), &pid, &port, &folder); err != nil {
				t.Fatalf("%v in %q", err, out)
			}
			eventually(t, "the postmaster is gone", func() bool { return gone(pid) })
			eventually(t, "its folder is gone", func() bool {
				_, err := os.Stat(folder)
				return errors.Is(err, os.ErrNotExist)
			})
			if left := inFolder(folder); len(left) > 0 {
				t.Errorf("still running: %v", left)
			}
			// Only if nobody has the port is it free to be listened on.
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
			if err != nil {
				t.Fatalf("its port is taken: %v", err)
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
	dead := "ES_TEST_POSTGRES=postgres://nobody@127.0.0.1:1/none"
	cases := []struct {
		name        string
		environment []string
		args        []string
		fails       bool
		says        string
	}{
		{"is skipped over with a reason", []string{dead, "ES_TEST_REQUIRE=", "CI="}, nil, false, "ES_TEST_POSTGRES: failed to connect"},
		{"fails where servers are required", []string{dead, "ES_TEST_REQUIRE=1", "CI="}, nil, true, "ES_TEST_POSTGRES: failed to connect"},
		{"fails in CI", []string{dead, "ES_TEST_REQUIRE=", "CI=true"}, nil, true, "ES_TEST_POSTGRES: failed to connect"},
		{"is not looked for in short mode", []string{dead, "ES_TEST_REQUIRE=1"}, []string{"-test.short"}, false, "run without -short"},
		{"names mvn when that is missing", []string{"PATH=" + filepath.Dir(lookPath(t, "xz")) + "/none:" + only(t, "xz"), "ES_TEST_CACHE=" + open(t), "ES_TEST_POSTGRES=", "ES_TEST_REQUIRE=", "CI="}, nil, false, "install Maven"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, err := again(t, c.environment, append(c.args, "-test.v", "-test.run=^TestEach$")...).CombinedOutput()
			if (err != nil) != c.fails || !bytes.Contains(out, []byte(c.says)) || !c.fails && !bytes.Contains(out, []byte("--- SKIP")) {
				t.Errorf("error %v, want one: %v; it should say %q:\n%s", err, c.fails, c.says, out)
			}
		})
	}
}

func TestExternalServer(t *testing.T) {
	t.Parallel()
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: testserver.Postgres14, Settings: map[string]string{"log_statement": "ddl"}})
	named := []string{"ES_TEST_POSTGRES=" + server.URL("postgres"), "ES_TEST_REQUIRE=", "CI="}
	t.Run("is used", func(t *testing.T) {
		out, err := again(t, named, "-test.v", "-test.run=^(TestDatabase|TestEach)$").CombinedOutput()
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
		out, err := again(t, named, "-test.v", "-test.run=^TestBackup$").CombinedOutput()
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
			out, err := again(t, []string{"ES_TEST_CACHE=" + cache, "ES_TEST_POSTGRES=", "ES_TEST_REQUIRE=1"}, "-test.run=^TestNotRoot$").CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
}

// open returns a temporary folder that the servers' user can enter too.
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

// only returns a folder for PATH with this one program in it.
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

// inFolder returns the processes, with their command lines, that work in a folder or below it.
func inFolder(folder string) map[int]string {
	found := map[int]string{}
	// The pattern is well formed, which is all that can be wrong.
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		at, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(at, folder+"/") {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		if err != nil {
			continue // it has just ended
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
