package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/postgres"
)

// A Role is the task of a process.
type Role string

// Roles of processes.
const (
	RoleWriter   Role = "writer"   // moves money
	RoleReader   Role = "reader"   // runs projections and a reaction in Postgres
	RoleRelay    Role = "relay"    // publishes the log
	RoleConsumer Role = "consumer" // records in a ledger what it receives from topics
	RoleFed      Role = "fed"      // builds a read model in SQLite from topics
	RoleSettler  Role = "settler"  // completes transfers whose second half is missing, and ends
)

// An assignment describes the task of a process. It is passed as JSON in an environment variable.
type assignment struct {
	Role        Role
	Name        string
	Incarnation int
	Seed        uint64
	Folder      string // for histories
	Postgres    string // URL
	Schema      string // of the store; for read models see models
	Accounts    int
	Goroutines  int
	Lease       time.Duration
	Kafka       string         // bootstrap.servers
	Prefix      string         // of topics
	Login       map[string]any // librdkafka's settings to log in; nil if there are no users
}

const assignmentVariable = "ES_CHAOS_ROLE"

// id returns the name of one incarnation of a process.
func (a assignment) id() string { return fmt.Sprintf("%s.%d", a.Name, a.Incarnation) }

// random returns the random numbers of one goroutine, which differ by process and incarnation.
func (a assignment) random(goroutine int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, a.Seed, a.Name, a.Incarnation)
	return rand.New(rand.NewPCG(h.Sum64(), uint64(goroutine)))
}

// An actor is a process in its role.
type actor struct {
	assignment
	history *History
}

// Play runs a role if this process was started for one, and reports whether it was. TestMain calls it first.
func Play() (played bool) {
	text, set := os.LookupEnv(assignmentVariable)
	if !set {
		return false
	}
	if err := play(text); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	return true
}

func play(text string) (err error) {
	var a actor
	if err := json.Unmarshal([]byte(text), &a.assignment); err != nil {
		return err
	}
	if a.history, err = createHistory(filepath.Join(a.Folder, a.id()+historySuffix)); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go child.ExitWithParent()
	role := map[Role]func(context.Context, *actor) error{
		RoleWriter:   runWriter,
		RoleReader:   runProjections,
		RoleRelay:    runRelay,
		RoleConsumer: runConsumer,
		RoleFed:      runFed,
		RoleSettler:  runSettler,
	}[a.Role]
	if role == nil {
		return fmt.Errorf("unknown role %q", a.Role)
	}
	if err = role(ctx, &a); err != nil && ctx.Err() == nil {
		a.history.note(Entry{Kind: Died, Text: err.Error()})
		return err
	}
	return a.history.close()
}

// open opens the store. It waits for a server that is unavailable.
func (a *actor) open(ctx context.Context) (*postgres.Store, error) {
	return postgres.Config{Schema: a.Schema}.Open(ctx, a.Postgres)
}

// violated records that the process has observed a violation.
func (a *actor) violated(format string, args ...any) {
	a.history.note(Entry{Kind: Violated, Text: fmt.Sprintf(format, args...)})
}
