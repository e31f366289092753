package main

import (
	"bytes"
	"context"
	"database/sql"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/sqlite"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }

// A log is a store that tests fill.
type log interface {
	es.Log
	es.Snapshots
}

// fill appends what the tests are about: two accounts, one of them long enough for a snapshot, and a stream with odd names and data.
func fill(t testing.TB, store log) {
	t.Helper()
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	accounts.Snapshots, accounts.SnapshotEvery = store, 3
	do := func(id string, c account.Command, options ...es.ExecuteOption) {
		t.Helper()
		if _, err := accounts.Execute(t.Context(), id, c, options...); err != nil {
			t.Fatal(err)
		}
	}
	do("ann", account.Open{Owner: "Ann"})
	do("bob", account.Open{Owner: "Bob <&> Söhne"})
	do("ann", account.Deposit{Amount: 100_00}, es.CommandID("salary"))
	do("ann", account.Withdraw{Amount: 30_00}, es.CommandID("transfer-1"), es.Meta(map[string]string{es.MetaCorrelation: "transfer-1"}))
	do("bob", account.Deposit{Amount: 30_00}, es.CommandID("transfer-1"), es.Meta(map[string]string{es.MetaCorrelation: "transfer-1"}))
	if err := accounts.Close(context.Background()); err != nil { // the snapshot of ann, at version 3
		t.Fatal(err)
	}
	_, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "note", ID: "a\x1b[31m/b"}, Expected: 0, Events: []es.Record{
		{Type: "noted", Data: []byte("red\x1b[31m alert\n")}, {Type: "noted", Data: []byte{0xff, 0x00}},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// bank makes a SQLite store with something in it and returns its path.
func bank(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bank.db")
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, store)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// program runs the program and returns what it wrote.
func program(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

// expect runs the program and compares its output with a file in testdata, in which what differs each time has a fixed form.
func expect(t *testing.T, file, store string, args ...string) {
	t.Helper()
	code, stdout, stderr := program(t, append([]string{"-s", store}, args...)...)
	if code != exitOK || stderr != "" {
		t.Errorf("es %q: exit code %d, and on standard error:\n%s", args, code, stderr)
	}
	golden(t, file, store, stdout)
}

func golden(t *testing.T, file, store, output string) {
	t.Helper()
	got := strings.ReplaceAll(output, store, "STORE")
	for pattern, fixed := range map[string]string{
		`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z`:        "2026-11-25T12:00:00.000000Z",
		`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"`: `"2026-11-25T12:00:00.000000Z"`,
		`id [A-Z2-7]{26}`:            "id IDENTITY",
		`"id":"[A-Z2-7]{26}"`:        `"id":"IDENTITY"`,
		`"(source)":"[A-Z2-7]{26}"`:  `"$1":"IDENTITY"`,
		`"ageSeconds":[0-9.]+`:       `"ageSeconds":1`,
		`( \d+)  [0-9.m]+s +(\d+  )`: "$1  1s  $2",
		`127\.0\.0\.1:\d+/\w+`:       "127.0.0.1:5432/bank",
	} {
		got = regexp.MustCompile(pattern).ReplaceAllString(got, fixed)
	}
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant, as in %s (go test ./cmd/es -update writes it anew):\n%s", got, path, want)
	}
}

func TestOutput(t *testing.T) {
	store := bank(t)
	for _, test := range []struct {
		file string
		args []string
	}{
		{"streams.txt", []string{"streams"}},
		{"streams-kind.txt", []string{"streams", "-k", "account"}},
		{"streams.json", []string{"-json", "streams"}},
		{"read.txt", []string{"read", "account/ann"}},
		{"read-after.txt", []string{"read", "account/bob", "--after", "1"}},
		{"read.json", []string{"read", "note/a\x1b[31m/b", "-json"}},
		{"tail.txt", []string{"tail", "-n", "4"}},
		{"tail-filter.json", []string{"tail", "-json", "-n", "2", "-k", "account", "-t", "opened"}},
		{"verify.txt", []string{"verify"}},
		{"verify.json", []string{"verify", "-json"}},
	} {
		t.Run(test.file, func(t *testing.T) { expect(t, test.file, store, test.args...) })
	}
}

func TestPostgresOutput(t *testing.T) {
	store := postgresBank(t, testserver.Postgres(t, testserver.Postgres18))
	expect(t, "streams.txt", store, "streams")
	expect(t, "read.txt", store, "read", "account/ann")
	expect(t, "tail.txt", store, "tail", "-n", "4")
	expect(t, "verify-postgres.txt", store, "verify")
}

func TestTailFollows(t *testing.T) {
	path := bank(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"-s", path, "tail", "-f", "-n", "1", "-json"}, w, io.Discard)
		_ = w.Close()
	}()
	lines := make([]byte, 0, 4096)
	await := func(text string) {
		t.Helper()
		for buffer := make([]byte, 4096); !bytes.Contains(lines, []byte(text)); {
			n, err := r.Read(buffer)
			if lines = append(lines, buffer[:n]...); err != nil {
				t.Fatalf("%v before %q came:\n%s", err, text, lines)
			}
		}
	}
	await(`"position":7`)
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "note", ID: "new"}, Events: []es.Record{{Type: "noted", Data: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	await(`"stream":"note/new"`)
	if n := bytes.Count(lines, []byte("\n")); n != 2 {
		t.Errorf("it wrote %d lines, want 2:\n%s", n, lines)
	}
	interrupt()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
	if c := <-code; c != exitOK {
		t.Errorf("interrupted, it ended with exit code %d", c)
	}
}

func TestRefusals(t *testing.T) {
	store := bank(t)
	nowhere := filepath.Join(t.TempDir(), "none.db")
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no store", []string{"verify"}, exitUsage, "--store"},
		{"no verb", []string{"-s", store}, exitUsage, "expected one of"},
		{"a verb that is not there", []string{"-s", store, "destroy"}, exitUsage, "destroy"},
		{"a file that is not there", []string{"-s", nowhere, "verify"}, exitFailed, "must exist"},
		{"a stream that is not there", []string{"-s", store, "read", "account/eve"}, exitFailed, "es streams -k account"},
		{"a stream without a kind", []string{"-s", store, "read", "eve"}, exitFailed, "use kind/id"},
		{"a server that is not there", []string{"-s", "postgres://u:geheim@127.0.0.1:1/x", "--timeout", "300ms", "verify"}, exitFailed, "postgres: open"},
		{"an invalid URL", []string{"-s", "postgres://u:geheim@127.0.0.1:port/x", "verify"}, exitFailed, "u:xxxxx@"},
		{"a URL of something else", []string{"-s", "postgress://u:geheim@127.0.0.1/x", "verify"}, exitFailed, "unknown scheme postgress://: give the path of a SQLite file, a URL of postgres://"},
		{"a verb that is not there, with a URL", []string{"-s", "postgres://u:geheim@127.0.0.1/x", "destroy", "postgres://u:geheim@h/x"}, exitUsage, "destroy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, stdout, stderr := program(t, test.args...)
			if code != test.code || !strings.Contains(stderr, test.says) || stdout != "" {
				t.Errorf("exit code %d, want %d; on standard error, which is to say %q:\n%s\non standard output:\n%s", code, test.code, test.says, stderr, stdout)
			}
			if strings.Contains(stderr, "geheim") {
				t.Errorf("it shows a password: %s", stderr)
			}
		})
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("it has made a database")
	}
	if code, stdout, _ := program(t, "--help"); code != exitOK || !strings.Contains(stdout, "verify") {
		t.Errorf("--help: exit code %d\n%s", code, stdout)
	}
}

func TestRedact(t *testing.T) {
	for _, test := range []struct{ message, store, want string }{
		{"at postgres://u:geheim@h/x", "", "at postgres://u:xxxxx@h/x"},
		{"at postgres://u:ge:h@eim@h/x", "", "at postgres://u:xxxxx@h/x"},
		{"at postgres://u@h/x", "", "at postgres://u@h/x"},
		{"host=h password=geheim dbname=x", "", "host=h password=xxxxx dbname=x"},
		{"host=h password = 'ge h\\'eim' dbname=x", "", "host=h password = xxxxx dbname=x"},
		{"at postgres://h/x?password=geheim&user=u", "", "at postgres://h/x?password=xxxxx&user=u"},
		{"the server says: geheim%2f is wrong, ge/heim too", "postgres://u:ge%2Fheim@h/x", "the server says: geheim%2f is wrong, xxxxx too"},
	} {
		if got := redact(test.message, test.store); got != test.want {
			t.Errorf("%s\ngot:  %s\nwant: %s", test.message, got, test.want)
		}
	}
}

// change runs statements on a SQLite database, past the store.
func change(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
