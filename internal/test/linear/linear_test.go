package linear_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/linear"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/sqlite"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childFlag {
		os.Exit(beChild(os.Args[2]))
	}
	goleak.VerifyTestMain(servers{m})
}

// servers stops the servers before goleak checks for leaks.
type servers struct{ m *testing.M }

func (s servers) Run() int { return testserver.Run(s.m) }

// A register holds a number. It is the usual example for linearizability.
type register struct{ N int }

// A write sets a register if it has the old number or Any is set. Writing the current number does nothing.
type write struct {
	Any     bool
	Old, To int
}

type written struct{ To int }

type registerRules struct{}

// Decide implements [es.Aggregate].
func (registerRules) Decide(r register, w write) ([]written, error) {
	switch {
	case !w.Any && r.N != w.Old:
		return nil, es.Invariant("OTHER_NUMBER", "the number is %d", r.N)
	case r.N == w.To:
		return nil, nil
	}
	return []written{{w.To}}, nil
}

// Evolve implements [es.Aggregate].
func (registerRules) Evolve(_ register, w written) register { return register{w.To} }

var registerCodec = es.JSON(map[string]written{"written": {}})

type (
	registerHistory = linear.History[register, write, written]
	accountHistory  = linear.History[account.Account, account.Command, account.Event]
)

// A service executes calls: another process, or a store in this one.
type service interface {
	register(ctx context.Context, call linear.Call[write]) (linear.Answer, bool)
	account(ctx context.Context, call linear.Call[account.Command]) (linear.Answer, bool)
}

// A local service is two Repos in this process.
type local struct {
	registers *es.Repo[register, write, written]
	accounts  *es.Repo[account.Account, account.Command, account.Event]
}

func newLocal(s es.Store) *local {
	l := &local{es.NewRepo(s, "register", registerRules{}, registerCodec), es.NewRepo(s, "account", account.Rules{}, account.Codec)}
	l.registers.Retries, l.accounts.Retries = 1000, 1000
	return l
}

func (l *local) register(ctx context.Context, call linear.Call[write]) (linear.Answer, bool) {
	return linear.Make(ctx, l.registers, call)
}

func (l *local) account(ctx context.Context, call linear.Call[account.Command]) (linear.Answer, bool) {
	return linear.Make(ctx, l.accounts, call)
}

// A load is a series of random calls.
type load struct {
	services  []service
	clients   int
	each      int // number of calls of each client
	turns     int // how often the nemesis acts
	registers registerHistory
	accounts  accountHistory
	made      atomic.Int64
	turn      chan struct{}
}

// run makes the calls. Each client makes them one after the other.
func (l *load) run(ctx context.Context) {
	l.registers.Rules, l.accounts.Rules = registerRules{}, account.Rules{}
	var all sync.WaitGroup
	for c := range l.clients {
		all.Go(func() { l.client(ctx, c) })
	}
	all.Wait()
}

// moved counts a call, and notifies the nemesis when it is time to act.
func (l *load) moved() {
	if l.turns == 0 {
		return
	}
	if every := int64(l.clients * l.each / (l.turns + 1)); l.made.Add(1)%every == 0 {
		select {
		case l.turn <- struct{}{}:
		default: // it is still acting
		}
	}
}

func (l *load) client(ctx context.Context, c int) {
	random := rand.New(rand.NewPCG(11, uint64(c)))
	var version es.Version // of the aggregate that this client saw last
	for i := range l.each {
		l.moved()
		s := l.services[(c+i)%len(l.services)]
		// A call of unknown outcome stays open to the end, and the search grows exponentially with such calls on one
		// aggregate, so use others from time to time.
		id := fmt.Sprint(i/60, ".", random.IntN(3))
		if random.IntN(2) == 0 {
			call := linear.Call[write]{ID: id}
			switch random.IntN(8) {
			case 0, 1:
			case 2, 3, 4:
				call.Command = &write{Any: true, To: random.IntN(4)}
			default:
				call.Command = &write{Old: random.IntN(4), To: random.IntN(4)}
			}
			decorate(random, &call, c, i, version)
			again(&l.registers, c, call, &version, func() (linear.Answer, bool) { return s.register(ctx, call) })
			continue
		}
		call := linear.Call[account.Command]{ID: id}
		if command := accountCommand(random); command != nil {
			call.Command = &command
		}
		decorate(random, &call, c, i, version)
		again(&l.accounts, c, call, &version, func() (linear.Answer, bool) { return s.account(ctx, call) })
	}
}

func accountCommand(random *rand.Rand) account.Command {
	switch random.IntN(10) {
	case 0, 1:
		return nil
	case 2:
		return account.Open{Owner: "Ann"}
	case 3, 4, 5:
		return account.Deposit{Amount: random.Int64N(20)}
	case 6:
		return account.Close{}
	}
	return account.Withdraw{Amount: random.Int64N(30)}
}

// decorate gives some commands an id, and some an expected version.
func decorate[C any](random *rand.Rand, call *linear.Call[C], client, i int, version es.Version) {
	if call.Command == nil {
		return
	}
	switch random.IntN(4) {
	case 0:
		call.CommandID = fmt.Sprint(client, ".", i)
	case 1:
		if random.IntN(2) == 0 {
			call.Expected = &version
		}
	}
}

// again makes a call. If it has an id and its outcome is unknown, again repeats it, as a good client does.
func again[S comparable, C, E any](h *linear.History[S, C, E], client int, call linear.Call[C], version *es.Version, do func() (linear.Answer, bool)) {
	for range 50 {
		var answer linear.Answer
		var made bool
		h.Do(client, call, func() (linear.Answer, bool) {
			answer, made = do()
			return answer, made
		})
		if made && !answer.Unknown {
			*version = answer.Version
			return
		}
		if call.CommandID == "" {
			return
		}
	}
}

func (l *load) check(t *testing.T) {
	t.Helper()
	t.Run("registers", func(t *testing.T) { l.registers.CheckTest(t) })
	t.Run("accounts", func(t *testing.T) { l.accounts.CheckTest(t) })
}

// size returns the size of a load in a test.
func size(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

func TestMem(t *testing.T) {
	log := new(es.Mem)
	cached, uncached := newLocal(log), newLocal(log)
	uncached.registers.CacheSize, uncached.accounts.CacheSize = -1, -1
	uncached.registers.Snapshots, uncached.accounts.Snapshots = log, log
	uncached.registers.SnapshotEvery, uncached.accounts.SnapshotEvery = 3, 3
	l := &load{services: []service{cached, uncached}, clients: 8, each: size(400)}
	l.run(t.Context())
	for _, s := range []*local{cached, uncached} {
		if err := errors.Join(s.registers.Close(context.Background()), s.accounts.Close(context.Background())); err != nil {
			t.Error(err)
		}
	}
	l.check(t)
}

func TestSQLiteInOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "es.db")
	var services []service
	for range 2 {
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		services = append(services, newLocal(s))
	}
	l := &load{services: services, clients: 8, each: size(200)}
	l.run(t.Context())
	l.check(t)
}
