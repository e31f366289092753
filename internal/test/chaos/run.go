package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// Options say what a run is like. Zero values are the defaults.
type Options struct {
	Duration time.Duration // of the nemesis; 90 seconds if 0
	Seed     uint64        // of all that is random
	Postgres string        // the URL of a database to use in place of a server of the run's own
	Writers  int           // processes; 3 if 0
	Readers  int           // processes; 2 if 0
	Kafka    string        // bootstrap.servers of a cluster to use in place of one of the run's own
	NoKafka  bool          // leaves the topics out, and those who read them
	Brokers  int           // nodes of the run's own cluster, 1 or 3; 1 if 0
	Keep     bool          // the evidence, also if nothing was found
}

// A run is one of them.
type run struct {
	Options
	t      *testing.T
	random *rand.Rand // the nemesis's
	folder string     // of the evidence
	began  time.Time
	diary  io.Writer // what the nemesis does

	server  *testserver.Server // nil if it is the user's
	url     string             // past the proxies
	proxies []*testserver.Proxy
	schema  string

	kafka        *testserver.Kafka // nil if it is the user's, or there is none
	kafkaProxies []*testserver.Proxy
	prefix       string         // of topics; empty if there are none
	bootstrap    string         // past the proxies
	starting     sync.WaitGroup // brokers that are started
	startings    atomic.Int32

	processes  []*process
	faults     map[string]*tally // what the nemesis did
	watch      *watch
	violations []Violation
	lasted     time.Duration // under the nemesis
	took       time.Duration // to come to the end when all was healed
}

const (
	accountsOfBank = 24
	lease          = 2 * time.Second // of projections and relays: a pause is longer
)

// patience is how long things may take in the end, when all is healed: the more was written the longer it takes to build a read model anew.
func (r *run) patience() time.Duration { return 5*time.Minute + r.Duration/2 }

// Run runs a workload under a nemesis and fails the test if a promise was broken.
func Run(t *testing.T, o Options) {
	t.Helper()
	if o.Duration <= 0 {
		o.Duration = 90 * time.Second
	}
	if o.Writers <= 0 {
		o.Writers = 3
	}
	if o.Readers <= 0 {
		o.Readers = 2
	}
	folder, err := os.MkdirTemp("", fmt.Sprintf("es-chaos-%d-", o.Seed)) //nolint:usetesting // the evidence outlives a test that fails
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Options: o, t: t, folder: folder, began: time.Now(), random: rand.New(rand.NewPCG(o.Seed, 0)), faults: make(map[string]*tally)}
	t.Logf("chaos: seed %d, %v, evidence in %s", o.Seed, o.Duration, folder)
	t.Cleanup(func() {
		for _, p := range r.processes {
			p.discard()
		}
		switch {
		case t.Failed():
			t.Logf("chaos: the evidence is in %s; make chaos MINUTES=%.2g SEED=%d does the same again", folder, o.Duration.Minutes(), o.Seed)
		case !o.Keep:
			_ = os.RemoveAll(folder)
		}
	})
	diary, err := os.Create(filepath.Join(folder, "nemesis.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer diary.Close()
	r.diary = diary
	r.setUp()
	r.began, r.watch = time.Now(), newWatch(r.prefix != "") // servers take their time to start
	r.torment()
	r.heal()
	healed := time.Now()
	r.drain()
	r.took = time.Since(healed)
	r.judge()
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.diary, "%8.2f %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) must(what string, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("chaos: %s: %v", what, err)
	}
}

func (r *run) setUp() {
	r.schema = "chaos"
	if r.Postgres == "" {
		version := testserver.Postgres18
		if r.Seed%2 == 1 {
			version = testserver.Postgres14
		}
		r.server = testserver.StartPostgres(r.t, testserver.PostgresOptions{Version: version, Settings: map[string]string{"max_connections": "80"}})
		r.url = r.server.Database(r.t)
		for range 2 {
			r.proxies = append(r.proxies, testserver.StartProxy(r.t, r.url))
		}
	} else {
		r.url = r.Postgres
		r.schema = fmt.Sprintf("chaos_%d_%d", r.Seed, time.Now().Unix())
		r.t.Cleanup(r.dropSchemas)
	}
	store := r.open()
	r.must("close the store", store.Close())
	r.must("make the read models", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.PgConn().Exec(ctx, modelled(createModels, r.schema)).ReadAll()
		return err
	}))
	kafka := r.setUpKafka()
	for n := range r.Writers {
		r.start(assignment{Role: RoleWriter, Name: fmt.Sprint("writer-", n+1), Postgres: r.through(writersNetwork), Goroutines: 6})
	}
	for n := range r.Readers {
		r.start(assignment{Role: RoleReader, Name: fmt.Sprint("reader-", n+1), Postgres: r.through(readersNetwork)})
	}
	if r.prefix == "" {
		return
	}
	for n := range 2 {
		for _, role := range []Role{RoleRelay, RoleConsumer, RoleFed} {
			r.start(assignment{Role: role, Name: fmt.Sprintf("%s-%d", role, n+1), Postgres: r.through(readersNetwork), Kafka: kafka, Prefix: r.prefix})
		}
	}
}

// setUpKafka makes the topics, and returns the cluster's bootstrap.servers as processes have it.
func (r *run) setUpKafka() (bootstrap string) {
	if r.NoKafka || r.Kafka == "" && r.Postgres != "" {
		return ""
	}
	r.prefix, r.bootstrap = newPrefix(r.Seed), r.Kafka
	bootstrap = r.bootstrap
	if r.Kafka == "" {
		r.kafka = testserver.StartKafka(r.t, testserver.KafkaOptions{Nodes: max(r.Brokers, 1)})
		r.bootstrap = r.kafka.Bootstrap()
		bootstrap, r.kafkaProxies = r.kafka.Proxies(r.t)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	r.must("make the topics", createTopics(ctx, r.bootstrap, topicsOf(r.prefix)))
	r.must("make the ledger", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, modelled(createLedger, r.schema))
		return err
	}))
	return bootstrap
}

// The proxies, in order.
const (
	writersNetwork = iota
	readersNetwork
)

// through is the URL of the database as processes have it.
func (r *run) through(network int) string {
	if r.server == nil {
		return r.url
	}
	return r.proxies[network].Through(r.url)
}

// query works on a connection of its own, past the proxies.
func (r *run) query(work func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), 5*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return err
	}
	return errors.Join(work(ctx, conn), conn.Close(ctx))
}

// start starts a process with what is the same for all.
func (r *run) start(a assignment) *process {
	a.Seed, a.Folder, a.Schema, a.Accounts, a.Lease = r.Seed, r.folder, r.schema, accountsOfBank, lease
	p := start(a)
	r.processes = append(r.processes, p)
	return p
}

func (r *run) open() *postgres.Store {
	r.t.Helper()
	store, err := postgres.Config{Schema: r.schema}.Open(r.t.Context(), r.url)
	r.must("open the store", err)
	return store
}

func (r *run) dropSchemas() {
	if r.t.Failed() {
		r.t.Logf("chaos: schema %s is kept", r.schema)
		return
	}
	err := r.query(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "drop schema if exists "+pgx.Identifier{r.schema}.Sanitize()+", "+pgx.Identifier{models(r.schema)}.Sanitize()+" cascade")
		return err
	})
	if err != nil {
		r.t.Errorf("chaos: drop schema %s: %v", r.schema, err)
	}
}

// models is the schema of the read models beside that of a store.
func models(schema string) string { return schema + "_models" }

// drain lets everything come to its end: first those who write, and then those who read, when they have read all.
func (r *run) drain() {
	for _, p := range r.processes {
		if p.Role == RoleWriter {
			r.end(p)
		}
	}
	settler := r.start(assignment{Role: RoleSettler, Name: "settler", Postgres: r.url})
	select {
	case <-settler.gone:
	case <-time.After(r.patience()):
	}
	r.end(settler)
	r.await()
	r.awaitTopics()
	for _, p := range r.processes {
		if p.Role != RoleWriter && p.Role != RoleSettler {
			r.end(p)
		}
	}
}

// await returns when all readers have read all there is. The reaction appends to what it reads, so that the end moves for a while.
func (r *run) await() {
	store := r.open()
	defer store.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), r.patience())
	defer cancel()
	for head, last := es.Position(-1), es.Position(-2); head != last; {
		last = head
		var err error
		head, err = es.Head(ctx, store)
		for _, name := range []string{reactionBonus, projectionBalances, projectionStatement} {
			if err == nil {
				if err = store.WaitFor(ctx, name, head); err != nil {
					err = fmt.Errorf("%s: %w", name, err)
				}
			}
		}
		if err != nil {
			status, _ := store.Status(r.t.Context())
			r.violations = append(r.violations, Violation{promiseProcess, fmt.Sprintf("position %d was not reached within %v: %v; they stand at %+v", head, r.patience(), err, status)})
			return
		}
	}
}

// awaitTopics returns when those who are told by topics have been told all there is.
func (r *run) awaitTopics() {
	if r.prefix == "" {
		return
	}
	store := r.open()
	defer store.Close()
	head, err := es.Head(r.t.Context(), store)
	r.must("the end of the log", err)
	for end := time.Now().Add(r.patience()); ; time.Sleep(100 * time.Millisecond) {
		ledger, fed := r.ledgerCount(), r.fedCount()
		if ledger >= int64(head) && fed >= int64(head) {
			return
		}
		if time.Now().After(end) {
			leases, _ := store.ListLeases(r.t.Context())
			r.violations = append(r.violations, Violation{promiseProcess, fmt.Sprintf("of %d records the consumer was told %d and the model fed from topics has %d, after %v; the leases are %+v", head, ledger, fed, r.patience(), leases)})
			return
		}
	}
}

func (r *run) ledgerCount() (n int64) {
	r.must("count the ledger", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, modelled(countLedger, r.schema)).Scan(&n)
	}))
	return n
}

// fedCount is 0 as long as nobody has begun to build the model.
func (r *run) fedCount() (n int64) {
	store, err := sqlite.Config{ReadOnly: true}.Open(fedModel(r.folder))
	if err != nil {
		return 0
	}
	defer store.Close()
	if err := store.DB().QueryRowContext(r.t.Context(), countFed).Scan(&n); err != nil {
		return 0
	}
	return n
}

// fedRows reads the model.
func (r *run) fedRows() map[string]string {
	model := make(map[string]string)
	store, err := sqlite.Config{ReadOnly: true}.Open(fedModel(r.folder))
	r.must("open the model that is fed from topics", err)
	defer store.Close()
	rows, err := store.DB().QueryContext(r.t.Context(), selectFed)
	r.must("read the model that is fed from topics", err)
	defer rows.Close()
	for rows.Next() {
		var key, value string
		r.must("read the model that is fed from topics", rows.Scan(&key, &value))
		model[key] = value
	}
	r.must("read the model that is fed from topics", rows.Err())
	return model
}

func (r *run) end(p *process) {
	if err := p.end(r.patience()); err != nil {
		r.violations = append(r.violations, Violation{promiseProcess, err.Error()})
	}
}

// judge collects the evidence, checks it and says what was found.
func (r *run) judge() {
	r.t.Helper()
	evidence := r.collect()
	violations, counts, err := Check(evidence)
	r.must("read the evidence", err)
	r.violations = append(r.violations, violations...)
	summary := r.summary(counts)
	r.must("write the summary", os.WriteFile(filepath.Join(r.folder, "summary.txt"), []byte(summary+"\n"+r.details()), 0o600))
	r.t.Logf("chaos:\n%s", summary)
	for _, what := range tooLittle(r.happened(counts)) {
		r.t.Errorf("this run shows too little: %s", what)
	}
	if len(r.violations) == 0 {
		return
	}
	r.dump(evidence)
	const most = 30
	for i, v := range r.violations {
		if i == most {
			r.t.Errorf("and %d more", len(r.violations)-most)
			break
		}
		r.t.Error(v)
	}
}

func (r *run) collect() Evidence {
	store := r.open()
	defer func() { r.must("close the store", store.Close()) }()
	e := Evidence{History: readHistories(r.folder), Funds: accountsOfBank * endowment}
	for record, err := range store.All(r.t.Context(), 0, es.Filter{}) {
		r.must("read the log", err)
		e.Log = append(e.Log, record)
	}
	balances, statement, bonus, err := projected(e.Log)
	r.must("fold the log", err)
	balances.Rows, statement.Rows = r.rows(selectBalances), r.rows(selectStatement)
	e.Models = append(e.Models, balances, statement, bonus)
	if r.prefix != "" {
		ctx, cancel := context.WithTimeout(r.t.Context(), r.patience())
		defer cancel()
		if e.Published, err = readTopics(ctx, r.bootstrap, topicsOf(r.prefix)); err != nil {
			r.violations = append(r.violations, Violation{promiseTopics, err.Error()})
		}
		e.Relayed, e.Store = true, store.ID()
		ledger, fed := heard("the consumer's ledger", e.Log), heard("the model fed from topics", e.Log)
		ledger.Rows, fed.Rows = r.rows(selectLedger), r.fedRows()
		e.Models = append(e.Models, ledger, fed)
	}
	return e
}

// rows reads a read model of two columns, of which the first one is the key.
func (r *run) rows(sql string) map[string]string {
	model := make(map[string]string)
	r.must("read a read model", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, modelled(sql, r.schema))
		if err != nil {
			return err
		}
		var key, value string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error { model[key] = value; return nil })
		return err
	}))
	return model
}

// dump writes the evidence that is not in files yet.
func (r *run) dump(e Evidence) {
	write := func(name string, each func(*json.Encoder) error) {
		file, err := os.Create(filepath.Join(r.folder, name))
		r.must("keep the evidence", err)
		defer file.Close()
		r.must("keep the evidence", each(json.NewEncoder(file)))
	}
	write("log.jsonl", func(to *json.Encoder) error {
		for _, record := range e.Log {
			line := struct {
				Position es.Position
				ID       string
				Time     time.Time
				Content  string
				Meta     map[string]string
			}{record.Position, record.ID(), record.Time, content(record), record.Meta}
			if err := to.Encode(line); err != nil {
				return err
			}
		}
		return nil
	})
	write("models.json", func(to *json.Encoder) error { return to.Encode(e.Models) })
	write("topics.jsonl", func(to *json.Encoder) error {
		for _, p := range e.Published {
			if err := to.Encode(p); err != nil {
				return err
			}
		}
		return nil
	})
	write("violations.json", func(to *json.Encoder) error { return to.Encode(r.violations) })
	if r.server != nil {
		r.must("keep the evidence", os.WriteFile(filepath.Join(r.folder, "postgres.log"), []byte(r.server.Log()), 0o600))
	}
	if r.kafka != nil {
		r.keepKafkaLogs(func(name, text string) {
			r.must("keep the evidence", os.WriteFile(filepath.Join(r.folder, name), []byte(text), 0o600))
		})
	}
}
