package chaos

import (
	"context"
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
	"github.com/thalo-go/es/internal/test/powercut"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// Options are the options of a run. Zero values select the defaults.
type Options struct {
	Duration time.Duration // of fault injection; 0 means 90 seconds
	Seed     uint64        // of the random numbers
	Postgres string        // URL of a database to use instead of starting a server
	Writers  int           // number of processes; 0 means 3
	Readers  int           // number of processes; 0 means 2
	Kafka    string        // bootstrap.servers of a cluster to use instead of starting one
	NoKafka  bool          // leaves out topics and the processes that read them
	Brokers  int           // nodes of the started cluster, 1 or 3; 0 means 1
	Secure   bool          // gives the started cluster TLS, SCRAM and an authorizer, and each role a user with no more rights than documented
	Keep     bool          // keeps the evidence of a run that passed
	PowerCut bool          // adds power cuts of the started server, and of the read models in SQLite that are built from topics
	Beside   string        // test binary of this package of another release, which half of the processes run
}

// A run is one run of the workload with faults.
type run struct {
	Options
	t      *testing.T
	random *rand.Rand // used by the nemesis
	folder string     // contains the evidence
	began  time.Time
	diary  io.Writer // log of the nemesis

	server  *testserver.Server // nil if the server existed before
	url     string             // bypasses the proxies
	proxies []*testserver.Proxy
	schema  string

	disk      *powercut.Disk // of the server; nil without power cuts
	modelDisk *powercut.Disk // of the read models in SQLite
	power     sync.RWMutex   // held while processes start; locked while the power of the read models is cut

	kafka        *testserver.Kafka // nil without Kafka, or if the cluster existed before
	kafkaProxies []*testserver.Proxy
	prefix       string         // of topics; empty without Kafka
	bootstrap    string         // bypasses the proxies
	starting     sync.WaitGroup // brokers that are being restarted
	startings    atomic.Int32

	processes  []*process
	faults     map[string]*tally // by name
	watch      *watch
	violations []Violation
	lasted     time.Duration // duration of fault injection
	took       time.Duration // time to complete all work afterwards
}

const (
	accountsOfBank = 24
	lease          = 2 * time.Second // of projections and relays; pauses are longer
)

// patience returns how long work may take after all faults were undone. Rebuilding a read model takes longer after a
// longer run.
func (r *run) patience() time.Duration { return 5*time.Minute + r.Duration/2 }

// Run runs a workload with fault injection and fails the test if a guarantee was violated.
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
			t.Logf("chaos: the evidence is in %s; to repeat the run: make chaos MINUTES=%.2g SEED=%d", folder, o.Duration.Minutes(), o.Seed)
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
	r.began, r.watch = time.Now(), newWatch(r.prefix != "") // starting the servers does not count
	r.injectFaults()
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
		options := testserver.PostgresOptions{Version: version, Settings: map[string]string{"max_connections": "80"}}
		if r.PowerCut {
			r.disk = powercut.Start(r.t)
			options.Preload = r.disk.Library()
		}
		r.server = testserver.StartPostgres(r.t, options)
		r.url = r.server.Database(r.t)
		if r.PowerCut {
			r.server.Stop(r.t, testserver.Fast)
			r.must("follow the files of the server", r.disk.Attach(r.server.Dir()))
			r.server.Start(r.t)
		}
		for range 2 {
			r.proxies = append(r.proxies, testserver.StartProxy(r.t, r.url))
		}
	} else {
		r.url = r.Postgres
		r.schema = fmt.Sprintf("chaos_%d_%d", r.Seed, time.Now().Unix())
		r.t.Cleanup(r.dropSchemas)
	}
	if r.Beside != "" {
		r.must("create the schema with the other release", r.settleFirst())
	}
	store := r.open()
	r.must("close the store", store.Close())
	r.must("create the read models", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.PgConn().Exec(ctx, modelled(createModels, r.schema)).ReadAll()
		return err
	}))
	kafka, logins := r.setUpKafka()
	for n := range r.Writers {
		r.start(assignment{Role: RoleWriter, Name: fmt.Sprint("writer-", n+1), Postgres: r.through(writersNetwork), Goroutines: 6})
	}
	for n := range r.Readers {
		r.start(assignment{Role: RoleReader, Name: fmt.Sprint("reader-", n+1), Postgres: r.through(readersNetwork)})
	}
	if r.prefix == "" {
		return
	}
	r.setUpModelDisk()
	for n := range 2 {
		for _, role := range []Role{RoleRelay, RoleConsumer, RoleFed} {
			r.start(assignment{Role: role, Name: fmt.Sprintf("%s-%d", role, n+1), Postgres: r.through(readersNetwork), Kafka: kafka, Prefix: r.prefix, Login: logins[role]})
		}
	}
}

// setUpModelDisk puts the read models in SQLite into a folder whose power can be cut.
func (r *run) setUpModelDisk() {
	if !r.PowerCut {
		return
	}
	folder := filepath.Join(r.folder, "models")
	r.must("create the folder of the read models", os.Mkdir(folder, 0o700))
	r.must("link the read model", os.Symlink(filepath.Join(folder, "fed.db"), fedModel(r.folder)))
	r.modelDisk = powercut.Start(r.t)
	r.must("follow the files of the read models", r.modelDisk.Attach(folder))
}

// setUpKafka creates the topics and returns the bootstrap.servers for the processes, and how they log in.
func (r *run) setUpKafka() (bootstrap string, logins map[Role]map[string]any) {
	if r.NoKafka || r.Kafka == "" && r.Postgres != "" {
		return "", nil
	}
	r.prefix, r.bootstrap = newPrefix(r.Seed), r.Kafka
	bootstrap = r.bootstrap
	if r.Kafka == "" {
		r.kafka = testserver.StartKafka(r.t, testserver.KafkaOptions{Nodes: max(r.Brokers, 1), Secure: r.Secure})
		r.bootstrap = r.kafka.Bootstrap()
		bootstrap, r.kafkaProxies = r.kafka.Proxies(r.t)
		if r.Secure {
			logins = r.logins(bootstrap)
		}
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	r.must("create the topics", createTopics(ctx, r.bootstrap, topicsOf(r.prefix)))
	r.must("create the ledger", r.query(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, modelled(createLedger, r.schema))
		return err
	}))
	return bootstrap, logins
}

// Indexes of the proxies.
const (
	writersNetwork = iota
	readersNetwork
)

// through returns the URL of the database for the processes.
func (r *run) through(network int) string {
	if r.server == nil {
		return r.url
	}
	return r.proxies[network].Through(r.url)
}

// query runs work on a new connection, bypassing the proxies.
func (r *run) query(work func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), 5*time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.url)
	if err != nil {
		return err
	}
	return errors.Join(work(ctx, conn), conn.Close(ctx))
}

// start starts a process with the settings that all share.
// firstSettler is the settler of the other release, which creates the schema.
const firstSettler = "first-settler"

func (r *run) settleFirst() error {
	p := r.start(assignment{Role: RoleSettler, Name: firstSettler, Postgres: r.url})
	<-p.gone
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

func (r *run) start(a assignment) *process {
	a.Seed, a.Folder, a.Schema, a.Accounts, a.Lease = r.Seed, r.folder, r.schema, accountsOfBank, lease
	preload := ""
	if a.Role == RoleFed && r.modelDisk != nil {
		preload = r.modelDisk.Library()
	}
	p := start(a, r.Beside, preload, &r.power)
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

// models returns the schema of the read models of a store.
func models(schema string) string { return schema + "_models" }

// drain ends the writers, and then the readers when they have read everything.
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

// await waits until all readers have read the whole log. The reactions append, so the end moves for a while.
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
		if err == nil {
			err = r.awaitReminders(ctx, store, head)
		}
		if err != nil {
			status, _ := store.Status(r.t.Context())
			r.violations = append(r.violations, Violation{guaranteeProcess, fmt.Sprintf("position %d was not reached within %v: %v; status: %+v", head, r.patience(), err, status)})
			return
		}
	}
}

// awaitTopics waits until the consumers of topics have received the whole log.
func (r *run) awaitTopics() {
	if r.prefix == "" {
		return
	}
	store := r.open()
	defer store.Close()
	head, err := es.Head(r.t.Context(), store)
	r.must("read the end of the log", err)
	for end := time.Now().Add(r.patience()); ; time.Sleep(100 * time.Millisecond) {
		ledger, fed := r.ledgerCount(), r.fedCount()
		if ledger >= int64(head) && fed >= int64(head) {
			return
		}
		if time.Now().After(end) {
			leases, _ := store.ListLeases(r.t.Context())
			r.violations = append(r.violations, Violation{guaranteeProcess, fmt.Sprintf("of %d records the consumer received %d and the model built from topics has %d after %v; leases: %+v", head, ledger, fed, r.patience(), leases)})
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

// fedCount returns 0 while the model does not exist yet.
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
	r.must("open the model built from topics", err)
	defer store.Close()
	rows, err := store.DB().QueryContext(r.t.Context(), selectFed)
	r.must("read the model built from topics", err)
	defer rows.Close()
	for rows.Next() {
		var key, value string
		r.must("read the model built from topics", rows.Scan(&key, &value))
		model[key] = value
	}
	r.must("read the model built from topics", rows.Err())
	return model
}

func (r *run) end(p *process) {
	if err := p.end(r.patience()); err != nil {
		r.violations = append(r.violations, Violation{guaranteeProcess, err.Error()})
	}
}
