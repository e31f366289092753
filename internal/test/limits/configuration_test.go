package limits_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// A wrong is an invalid request. Its error must contain the remedy, and nothing may have happened.
type wrong struct {
	name   string
	ask    func(ctx context.Context) error
	remedy string
	other  bool // the error need not wrap es.ErrInvalid
}

func check(t *testing.T, table []wrong) {
	t.Helper()
	for _, w := range table {
		t.Run(w.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := w.ask(ctx)
			if err == nil || !strings.Contains(err.Error(), w.remedy) || w.remedy == "" {
				t.Errorf("%v: want an error with the remedy %s", err, w.remedy)
			}
			if !w.other && !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%v: want an error that wraps es.ErrInvalid", err)
			}
		})
	}
}

var long = strings.Repeat("x", 2000)

func TestRepo(t *testing.T) {
	execute := func(kind, id string, options ...es.ExecuteOption) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := es.NewRepo(new(es.Mem), kind, account.Rules{}, account.Codec).Execute(ctx, id, account.Open{Owner: "Ann"}, options...)
			return err
		}
	}
	loadAt := func(version es.Version) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := es.NewRepo(new(es.Mem), "account", account.Rules{}, account.Codec).LoadAt(ctx, "ann", version)
			return err
		}
	}
	check(t, []wrong{
		{"no kind", execute("", "ann"), "is empty: give it a name", false},
		{"a kind with a slash", execute("a/b", "ann"), "which separates kind and id", false},
		{"a long kind", execute(long, "ann"), "the limit is 128", false},
		{"a kind that is no text", execute("a\xff", "ann"), "names are text", false},
		{"no id", execute("account", ""), "is empty: give it a name", false},
		{"a long id", execute("account", long), "the limit is 512", false},
		{"an id with a NUL byte", execute("account", "a\x00"), "names are text", false},
		{"an empty command id", execute("account", "ann", es.CommandID("")), "is empty: give it a name", false},
		{"a long command id", execute("account", "ann", es.CommandID(long)), "the limit is 1024", false},
		{"a negative version", execute("account", "ann", es.ExpectVersion(-1)), "give 0 or more, or leave ExpectVersion out", false},
		{"metadata that is no text", execute("account", "ann", es.Meta(map[string]string{"k": "\xff"})), "encode it as text", false},
		{"large metadata", execute("account", "ann", es.Meta(map[string]string{"k": strings.Repeat("x", es.MaxMeta)})), "put it into the data", false},
		{"a version before the first", loadAt(-1), "must not be negative", false},
		{"a version that was not reached", loadAt(7), "has no version 7", false},
		{"a stream name without a slash", func(context.Context) error { _, err := es.ParseStream("ann"); return err }, "use kind/id, such as account/42", false},
		{"a position beyond the end", func(ctx context.Context) error { _, err := new(es.Mem).Changed(ctx, 7); return err }, "belongs to another store, or this one was restored from a backup", true},
		{"an event that the codec does not know", func(ctx context.Context) error {
			log := new(es.Mem)
			_, err := log.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "ann"}, Events: []es.Record{{Type: "renamed"}}})
			if err == nil {
				_, err = es.NewRepo(log, "account", account.Rules{}, account.Codec).Load(ctx, "ann")
			}
			return err
		}, "add it to the codec, or Rename, Upcast or Retire it", true},
	})
}

func TestStores(t *testing.T) {
	folder := t.TempDir()
	opened := func(s interface{ Close() error }, err error) error {
		if err == nil {
			err = s.Close()
		}
		return err
	}
	inSQLite := func(path string, c sqlite.Config) func(context.Context) error {
		return func(context.Context) error { return opened(c.Open(path)) }
	}
	inPostgres := func(url string, c postgres.Config) func(context.Context) error {
		return func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return opened(c.Open(ctx, url))
		}
	}
	must(t, os.WriteFile(filepath.Join(folder, "letter"), []byte(long), 0o600))
	check(t, []wrong{
		{"SQLite: no path", inSQLite("", sqlite.Config{}), "give a file, or :memory:", true},
		{"SQLite: a path with a NUL byte", inSQLite("a\x00b", sqlite.Config{}), "give another", true},
		{"SQLite: a folder", inSQLite(folder, sqlite.Config{}), "give a file in it", true},
		{"SQLite: no folder", inSQLite(filepath.Join(folder, "none", "es.db"), sqlite.Config{}), "the folder must exist", true},
		{"SQLite: no database", inSQLite(filepath.Join(folder, "letter"), sqlite.Config{}), "not a database", true},
		{"Postgres: no URL", inPostgres("postgres://[", postgres.Config{}), "postgres: open", true},
		{"Postgres: an unknown setting of the pool", inPostgres("postgres://localhost/x?pool_max_conns=many", postgres.Config{}), "pool_max_conns", true},
		{"Postgres: no server", inPostgres("postgres://127.0.0.1:1/x", postgres.Config{}), "the last attempt", true},
		{"Postgres: a schema with a NUL byte", inPostgres("postgres://127.0.0.1:1/x", postgres.Config{Schema: "a\x00"}), "a name is UTF-8 of at most 50 bytes without NUL", false},
		{"Postgres: a long schema", inPostgres("postgres://127.0.0.1:1/x", postgres.Config{Schema: long}), "a name is UTF-8 of at most 50 bytes without NUL", false},
	})
}

func TestProjections(t *testing.T) {
	s := openSQLite(t)
	handle := func(context.Context, *sql.Tx, []es.Record) error { return nil }
	project := func(p sqlite.Projection) func(context.Context) error {
		return func(ctx context.Context) error { return s.Project(ctx, p) }
	}
	const name = "a name is UTF-8 of 1 to 128 bytes without NUL"
	check(t, []wrong{
		{"no name", project(sqlite.Projection{Handle: handle}), name, false},
		{"a long name", project(sqlite.Projection{Name: long, Handle: handle}), name, false},
		{"a name that is not UTF-8", project(sqlite.Projection{Name: "\xff", Handle: handle}), name, false},
		{"no handler", project(sqlite.Projection{Name: "sums"}), "give it one", false},
		{"a version below 0", project(sqlite.Projection{Name: "sums", Version: -1, Handle: handle}), "give 0 or more", false},
		{"partitions below 0", project(sqlite.Projection{Name: "sums", Partitions: -1, Handle: handle}), "or 0 for 1", false},
		{"very many partitions", project(sqlite.Projection{Name: "sums", Partitions: 1 << 30, Handle: handle}), "or 0 for 1", false},
		{"a batch below 0", project(sqlite.Projection{Name: "sums", Batch: -1, Handle: handle}), "0 for the default", false},
		{"a lease below 0", project(sqlite.Projection{Name: "sums", Lease: -1, Handle: handle}), "0 for the default", false},
		{"an unknown OnError", project(sqlite.Projection{Name: "sums", OnError: 7, Handle: handle}), "give es.Stop or es.Park", false},
		{"a reaction without a handler", func(ctx context.Context) error { return s.React(ctx, projection.Reaction{Name: "mail"}) }, "give it one", false},
		{"to rebuild what does not exist", func(ctx context.Context) error { return s.Rebuild(ctx, "none", 0) }, "it does not exist", false},
		{"to forget what does not exist", func(ctx context.Context) error { return s.Forget(ctx, "none", 0) }, "it does not exist", false},
		{"to retry what is not parked", func(ctx context.Context) error {
			return s.Retry(ctx, "none", 0, es.Stream{Kind: "account", ID: "ann"})
		}, "is parked", false},
		{"to drop what is not parked", func(ctx context.Context) error {
			return s.Drop(ctx, "none", 0, es.Stream{Kind: "account", ID: "ann"})
		}, "is parked", false},
		{"a lease without a name", func(ctx context.Context) error {
			_, err := s.AcquireLease(ctx, "", "me", time.Second, "")
			return err
		}, "give it a name", false},
		{"a lease without a holder", func(ctx context.Context) error {
			_, err := s.AcquireLease(ctx, "relay", "", time.Second, "")
			return err
		}, "give it a name", false},
		{"a lease for no time", func(ctx context.Context) error {
			_, err := s.AcquireLease(ctx, "relay", "me", 0, "")
			return err
		}, "must be positive", false},
	})
	status, err := s.Status(t.Context())
	if err != nil || len(status) != 0 {
		t.Errorf("%d projections exist now: %v", len(status), err)
	}
}

func TestKafka(t *testing.T) {
	good := func(settings ...any) kafka.ConfigMap {
		c := kafka.ConfigMap{"bootstrap.servers": "127.0.0.1:1"}
		for i := 0; i < len(settings); i += 2 {
			c[settings[i].(string)] = settings[i+1]
		}
		return c
	}
	relay := func(change func(*kafka.Relay)) func(context.Context) error {
		return func(ctx context.Context) error {
			r := &kafka.Relay{Log: new(es.Mem), Prefix: "bank", Cluster: kafka.Cluster{Config: good()}}
			change(r)
			return r.Run(ctx)
		}
	}
	consumer := func(change func(*kafka.Consumer)) func(context.Context) error {
		return func(ctx context.Context) error {
			c := &kafka.Consumer{Cluster: kafka.Cluster{Config: good()}, Group: "mail", Topics: []string{"bank.account"}}
			change(c)
			return c.Run(ctx, func(context.Context, es.Record) error { return nil })
		}
	}
	source := func(c kafka.SourceConfig) func(context.Context) error {
		return func(ctx context.Context) error {
			s, err := c.Open(ctx)
			if err == nil {
				err = s.Close()
			}
			return err
		}
	}
	check(t, []wrong{
		{"relay: no log", relay(func(r *kafka.Relay) { r.Log = nil }), "set it to the store", false},
		{"relay: no prefix", relay(func(r *kafka.Relay) { r.Prefix = "" }), "use letters, digits, dots, hyphens and underscores", false},
		{"relay: an invalid prefix", relay(func(r *kafka.Relay) { r.Prefix = "b/ank" }), "use letters, digits, dots, hyphens and underscores", false},
		{"relay: an invalid name", relay(func(r *kafka.Relay) { r.Name = "a b" }), "use letters, digits, dots, hyphens and underscores", false},
		{"relay: no brokers", relay(func(r *kafka.Relay) { r.Cluster.Config = nil }), "give the addresses of some brokers in Config", false},
		{"relay: acks=1", relay(func(r *kafka.Relay) { r.Cluster.Config = good("acks", 1) }), "leave it out", false},
		{"relay: no idempotence", relay(func(r *kafka.Relay) { r.Cluster.Config = good("enable.idempotence", false) }), "leave it out", false},
		{"relay: a transactional id", relay(func(r *kafka.Relay) { r.Cluster.Config = good("transactional.id", "x") }), "leave it out", false},
		{"relay: an unknown encoding", relay(func(r *kafka.Relay) { r.Encoding = 7 }), "use kafka.CloudEvents or kafka.Compact", false},
		{"relay: an unknown TooLarge", relay(func(r *kafka.Relay) { r.TooLarge = 7 }), "use es.Stop or es.Park", false},
		{"relay: parking without transactions", relay(func(r *kafka.Relay) { r.TooLarge, r.AtLeastOnce = es.Park, new(es.Mem) }), "leave out AtLeastOnce, or use es.Stop", false},
		{"relay: a negative batch", relay(func(r *kafka.Relay) { r.Batch = -1 }), "0 is the default", false},
		{"relay: an unknown setting", relay(func(r *kafka.Relay) { r.Cluster.Config = good("acknowledge", "all") }), "acknowledge", false},
		{"consumer: no group", consumer(func(c *kafka.Consumer) { c.Group = "" }), "set the name of its consumer group", false},
		{"consumer: no topics", consumer(func(c *kafka.Consumer) { c.Topics = nil }), "set those to read", false},
		{"consumer: an invalid topic", consumer(func(c *kafka.Consumer) { c.Topics = []string{"a b"} }), "a name has up to 249 letters", false},
		{"consumer: no brokers", consumer(func(c *kafka.Consumer) { c.Cluster.Config = nil }), "give the addresses of some brokers in Config", false},
		{"consumer: automatic commits", consumer(func(c *kafka.Consumer) { c.Cluster.Config = good("enable.auto.commit", true) }), "leave it out", false},
		{"consumer: uncommitted messages", consumer(func(c *kafka.Consumer) { c.Cluster.Config = good("isolation.level", "read_uncommitted") }), "leave it out", false},
		{"consumer: the group as a setting", consumer(func(c *kafka.Consumer) { c.Cluster.Config = good("group.id", "x") }), "give the group as the field Group", false},
		{"consumer: an unknown OnError", consumer(func(c *kafka.Consumer) { c.OnError = 7 }), "use es.Stop or es.Park", false},
		{"consumer: negative workers", consumer(func(c *kafka.Consumer) { c.Workers = -1 }), "0 is the default", false},
		{"source: no topics", source(kafka.SourceConfig{Cluster: kafka.Cluster{Config: good()}}), "set those to read", false},
		{"source: no brokers", source(kafka.SourceConfig{Topics: []string{"bank.account"}}), "give the addresses of some brokers in Config", false},
		{"source: uncommitted messages", source(kafka.SourceConfig{Topics: []string{"bank.account"}, Cluster: kafka.Cluster{Config: good("isolation.level", "read_uncommitted")}}), "leave it out", false},
	})
}

// Programs fail with an error on one line, which contains the remedy.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds programs")
	}
	folder := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", folder, "../../../examples/bank", "../../../examples/loans", "../../../cmd/es")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, test := range []struct {
		program, arguments, remedy string
	}{
		{"bank", "-store mysql://localhost/es", "unknown scheme mysql://"},
		{"bank", "-store /nowhere/bank.db", "the folder must exist"},
		{"bank", "-nosuch", "-store"},
		{"bank", "-transfers many", "-transfers"},
		{"loans", "-log none.xes.gz", "-log none.xes.gz: no such file"},
		{"loans", "-log /nowhere/log.xes", "/nowhere/log.xes"},
		{"es", "verify", "missing flags: --store"},
		{"es", "--store /nowhere/es.db verify", "the folder must exist"},
		{"es", "nosuch", "es --help tells what there is"},
	} {
		t.Run(test.program+" "+test.arguments, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), filepath.Join(folder, test.program), strings.Fields(test.arguments)...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), test.remedy) || strings.Contains(string(out), "goroutine ") {
				t.Errorf("%v, %s: want %q", err, out, test.remedy)
			}
		})
	}
}
