package testserver

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PgBouncerOptions are the options of a pgbouncer.
type PgBouncerOptions struct {
	PoolSize int               // connections to the server for each user and database; 0 means 20
	Users    map[string]string // passwords of the users that may log in; the server's superuser always may
	Settings map[string]string // override the defaults of the [pgbouncer] section: "server_reset_query_always": "1"
}

// A PgBouncer is a connection pooler in transaction mode.
type PgBouncer struct {
	folder   string
	port     int
	programs installation

	mu      sync.Mutex
	process *process
}

// StartPgBouncer starts a pgbouncer in transaction mode in front of a server. It is stopped when the test ends. If it
// ends by itself it is started again, as the init system of a production machine does: before version 1.20, a cancel
// request that arrives when its query ends can end it ("server in bad state", pgbouncer issue 822).
func StartPgBouncer(t testing.TB, server *Server, options PgBouncerOptions) *PgBouncer {
	t.Helper()
	programs, err := pgbouncer(struct{}{})
	if err != nil {
		skipOrFail(t, err)
	}
	folder, err := tempFolder()
	if err != nil {
		t.Fatalf("testserver: %v", err)
	}
	p := &PgBouncer{folder: folder, programs: programs}
	stop := make(chan struct{})
	var keeper sync.WaitGroup
	t.Cleanup(func() {
		close(stop)
		keeper.Wait()
		if t.Failed() {
			t.Logf("log of pgbouncer:\n%s", tail(p.Log(), 50))
		}
		if p.process != nil && p.process.running(0) {
			// Do not wait for open transactions.
			if err := p.process.end(killed); err != nil {
				t.Errorf("testserver: stop pgbouncer: %v", err)
			}
		}
		releasePort(p.port)
		if err := os.RemoveAll(folder); err != nil {
			t.Errorf("testserver: %v", err)
		}
	})
	if err := p.startFirst(server, options); err != nil {
		t.Fatalf("testserver: start pgbouncer: %v", err)
	}
	keeper.Go(func() { p.keep(stop) })
	return p
}

// startFirst chooses a port and starts pgbouncer. If another program took the port in between, it chooses another one.
func (p *PgBouncer) startFirst(server *Server, options PgBouncerOptions) error {
	var failed error
	for range 5 {
		var err error
		if p.port, err = freePort(); err != nil {
			return err
		}
		if err := p.configure(server, options); err != nil {
			return err
		}
		if failed = p.start(); failed == nil || !strings.Contains(p.Log(), "Address already in use") {
			return failed
		}
		releasePort(p.port)
	}
	return failed
}

// keep starts pgbouncer again when it has ended. A failed start is retried; its log has the reason.
func (p *PgBouncer) keep(stop <-chan struct{}) {
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-stop:
			return
		case <-look.C:
		}
		p.mu.Lock()
		if p.process.hasEnded(time.Millisecond) {
			_ = p.start()
		}
		p.mu.Unlock()
	}
}

// URL returns the URL of a database of the server through the pooler.
func (p *PgBouncer) URL(database string) string { return databaseURL(p.port, database) }

// Through returns the URL with the pooler in place of the server.
func (p *PgBouncer) Through(rawURL string) string { return redirect(rawURL, p.port) }

// Log returns the log of pgbouncer.
func (p *PgBouncer) Log() string {
	text, err := os.ReadFile(filepath.Join(p.folder, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Restart stops pgbouncer, which drops all connections, and starts it again.
func (p *PgBouncer) Restart(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := errors.Join(p.process.end(terminate), p.start()); err != nil {
		t.Fatalf("testserver: restart pgbouncer: %v", err)
	}
}

func (p *PgBouncer) configure(server *Server, options PgBouncerOptions) error {
	config, err := pgx.ParseConfig(server.URL("postgres"))
	if err != nil {
		return err
	}
	users := map[string]string{config.User: config.Password}
	maps.Copy(users, options.Users)
	var list strings.Builder
	for _, user := range slices.Sorted(maps.Keys(users)) {
		quoted := strings.NewReplacer(`"`, `""`)
		fmt.Fprintf(&list, "\"%s\" \"%s\"\n", quoted.Replace(user), quoted.Replace(users[user]))
	}
	settings := map[string]string{
		"listen_addr":        "127.0.0.1",
		"listen_port":        strconv.Itoa(p.port),
		"unix_socket_dir":    "",
		"auth_type":          "trust",
		"auth_file":          filepath.Join(p.folder, "users"),
		"admin_users":        config.User,
		"pool_mode":          "transaction",
		"max_client_conn":    "2000",
		"default_pool_size":  "20",
		"log_connections":    "0",
		"log_disconnections": "0",
		"server_login_retry": "0.1", // by default a client waits 15 s after the server was unavailable
	}
	if options.PoolSize != 0 {
		settings["default_pool_size"] = strconv.Itoa(options.PoolSize)
	}
	maps.Copy(settings, options.Settings)
	var ini strings.Builder
	fmt.Fprintf(&ini, "[databases]\n* = host=%s port=%d\n[pgbouncer]\n", config.Host, config.Port)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&ini, "%s = %s\n", name, settings[name])
	}
	return errors.Join(
		os.WriteFile(filepath.Join(p.folder, "users"), []byte(list.String()), 0o600),
		os.WriteFile(filepath.Join(p.folder, "pgbouncer.ini"), []byte(ini.String()), 0o600),
		chown(p.folder))
}

func (p *PgBouncer) start() error {
	started, err := launch(command{
		path: filepath.Join(p.programs.bin, "pgbouncer"), args: []string{filepath.Join(p.folder, "pgbouncer.ini")}, env: environment(p.programs.libraries),
		folder: p.folder, log: filepath.Join(p.folder, "log"), end: terminate,
	})
	if err != nil {
		return err
	}
	p.process = started
	ctx, cancel := background()
	defer cancel()
	for {
		// The admin console answers even while the server is unavailable.
		c, err := pgx.Connect(ctx, p.URL("pgbouncer"))
		if err == nil && !started.hasEnded(time.Millisecond) {
			return c.Close(ctx)
		}
		if err == nil {
			err = errors.Join(errors.New("pgbouncer ended, and another program answers on its port"), c.Close(ctx))
		}
		if started.hasEnded(5*time.Millisecond) || ctx.Err() != nil {
			return fmt.Errorf("%w\n%s", err, tail(p.Log(), 20))
		}
	}
}

// pgbouncer returns the installation of pgbouncer and downloads it if necessary.
var pgbouncer = once(func(struct{}) (installation, error) {
	for _, bin := range []string{"/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"} {
		if _, err := os.Stat(filepath.Join(bin, "pgbouncer")); err == nil {
			return installation{bin: bin}, nil
		}
	}
	folder, err := fetchDebian("pgbouncer")
	if err != nil {
		return installation{}, &unavailableError{fmt.Errorf("pgbouncer: %w", err)}
	}
	found := installation{bin: filepath.Join(folder, "usr/sbin"), libraries: libraries(folder)}
	if _, err := run(found.command("pgbouncer", "--version")); err != nil {
		return found, &unavailableError{err}
	}
	return found, nil
})
