package transfer_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/bank/transfer"
	"github.com/thalo-go/es/internal/step"
)

var errKilled = errors.New("killed")

// mortal is a store that fails at one of its appends, before it is written or after.
type mortal struct {
	es.Log
	left  int // appends; negative means unlimited
	after bool
}

func (m *mortal) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	m.left--
	switch {
	case m.left == 0 && !m.after:
		return 0, errKilled
	case m.left == 0:
		_, err := m.Log.Append(ctx, appends...)
		return 0, errors.Join(errKilled, err)
	}
	return m.Log.Append(ctx, appends...)
}

func processOn(t *testing.T, log es.Log) transfer.Process {
	t.Helper()
	p := transfer.Process{
		Transfers: es.NewRepo(log, transfer.Kind, transfer.Rules{}, transfer.Codec),
		Accounts:  es.NewRepo(log, "account", account.Rules{}, account.Codec),
		Unclaimed: "unclaimed",
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Transfers.Close(context.Background()), p.Accounts.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return p
}

// handle calls the process with a record, like the engine of a reaction with this identity.
func handle(ctx context.Context, p transfer.Process, by string, r es.Record) error {
	return p.Handle(step.With(ctx, &step.Handling{By: by, Record: r.ID(), Meta: r.Meta}), r)
}

// identity is that of the process in most tests.
const identity = "test.1"

// work calls the process with the records after a position, like a store, until there are no more.
func work(ctx context.Context, log es.Log, p transfer.Process, by string, at es.Position) error {
	for {
		end, err := es.Head(ctx, log)
		if err != nil || at == end {
			return err
		}
		for r, err := range log.All(ctx, at, es.Filter{Kinds: []string{transfer.Kind}}) {
			if err == nil {
				err = handle(ctx, p, by, r)
			}
			if err != nil {
				return err
			}
		}
		at = end
	}
}

// bank returns a log with accounts and with transfers that reach every final stage.
func bank(t *testing.T) (*es.Mem, transfer.Process) {
	t.Helper()
	log := new(es.Mem)
	p := processOn(t, log)
	command := func(id string, c account.Command) {
		if _, err := p.Accounts.Execute(t.Context(), id, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"ann", "bob", "shut", "unclaimed"} {
		command(id, account.Open{Owner: id})
	}
	command("ann", account.Deposit{Amount: 100})
	command("shut", account.Close{})
	for id, ask := range map[string]transfer.Ask{
		"brought": {From: "ann", To: "bob", Amount: 30}, "refused": {From: "bob", To: "ann", Amount: 1000},
		"returned": {From: "ann", To: "shut", Amount: 20}, "to a missing account": {From: "ann", To: "none", Amount: 10}, "from a missing account": {From: "none", To: "ann", Amount: 10},
	} {
		if _, err := p.Transfers.Execute(t.Context(), id, ask); err != nil {
			t.Fatal(err)
		}
	}
	return log, p
}

func balance(t *testing.T, p transfer.Process, id string) int64 {
	t.Helper()
	at, err := p.Accounts.Load(t.Context(), id)
	a := at.State
	if err != nil {
		t.Fatal(err)
	}
	return a.Balance
}

// ended fails the test unless every transfer has ended and no money was created or lost.
func ended(t *testing.T, p transfer.Process) {
	t.Helper()
	for id, want := range map[string]transfer.Stage{
		"brought": transfer.StageBrought, "refused": transfer.StageRefused, "returned": transfer.StageReturned,
		"to a missing account": transfer.StageReturned, "from a missing account": transfer.StageRefused,
	} {
		if at, err := p.Transfers.Load(t.Context(), id); err != nil || at.State.Stage != want {
			t.Errorf("the transfer %q is %q, %v; want %q", id, at.State.Stage, err, want)
		}
	}
	if ann, bob := balance(t, p, "ann"), balance(t, p, "bob"); ann != 70 || bob != 30 {
		t.Errorf("ann has %d and bob %d, want 70 and 30", ann, bob)
	}
}

func TestProcessCompletesEveryTransfer(t *testing.T) {
	log, p := bank(t)
	if err := work(t.Context(), log, p, identity, 0); err != nil {
		t.Fatal(err)
	}
	ended(t, p)
}

// A release before steps has taken the money of some transfers, under the ids of their events, and its checkpoint has not moved.
func TestTransfersOfTheReleaseBeforeGoOn(t *testing.T) {
	log, p := bank(t)
	for r, err := range log.All(t.Context(), 0, es.Filter{Types: []string{"asked"}}) {
		if err != nil {
			t.Fatal(err)
		}
		at, err := p.Transfers.Load(t.Context(), r.Stream.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Accounts.Execute(t.Context(), at.State.From, account.Send{Amount: at.State.Amount}, es.CommandID(r.ID()), es.CausedBy(r)); err != nil {
			t.Fatal(err)
		}
	}
	if err := work(t.Context(), log, p, "", 0); err != nil {
		t.Fatal(err)
	}
	ended(t, p)
}

// The process is killed before and after every append and starts again from any earlier checkpoint.
func TestTheProcessIsKilledAnywhere(t *testing.T) {
	points := 0
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			log, _ := bank(t)
			store := &mortal{Log: log, left: at, after: after}
			err := work(t.Context(), store, processOn(t, store), identity, 0)
			again := processOn(t, log)
			if err == nil {
				ended(t, again)
				break // it was not killed
			}
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			points++
			if err := work(t.Context(), log, again, identity, es.Position(rand.N(6))); err != nil {
				t.Fatalf("killed at append %d: %v", at, err)
			}
			ended(t, again)
		}
	}
	if points < 20 {
		t.Errorf("it was killed at %d points only", points)
	}
}

// A paused process repeats a step that another did long ago. The account refused then and has the money now.
func TestAStepThatIsDoneAgainLaterHasTheSameEnd(t *testing.T) {
	log, p := bank(t)
	if err := work(t.Context(), log, p, identity, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Accounts.Execute(t.Context(), "bob", account.Deposit{Amount: 5000}); err != nil {
		t.Fatal(err)
	}
	late := processOn(t, log)
	var records []es.Record
	for r, err := range log.All(t.Context(), 0, es.Filter{Kinds: []string{transfer.Kind}}) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	slices.Reverse(records)
	for _, r := range records {
		if err := handle(t.Context(), late, identity, r); err != nil {
			t.Fatal(err)
		}
	}
	if bob := balance(t, p, "bob"); bob != 5030 {
		t.Errorf("bob has %d, want 5030", bob)
	}
}

func TestUndeliverableMoneyGoesToTheBank(t *testing.T) {
	log := new(es.Mem)
	p := processOn(t, log)
	for id, commands := range map[string][]account.Command{
		"ann": {account.Open{Owner: "ann"}, account.Deposit{Amount: 30}}, "unclaimed": {account.Open{Owner: "the bank"}},
	} {
		for _, c := range commands {
			if _, err := p.Accounts.Execute(t.Context(), id, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := p.Transfers.Execute(t.Context(), "t", transfer.Ask{From: "ann", To: "missing", Amount: 30}); err != nil {
		t.Fatal(err)
	}
	closing := 0
	for range 3 { // step by step; the sender closes the account as soon as it is empty
		head, err := es.Head(t.Context(), log)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range log.All(t.Context(), 0, es.Filter{Kinds: []string{transfer.Kind}}) {
			if err != nil || r.Position > head {
				break
			}
			if err := handle(t.Context(), p, identity, r); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Accounts.Execute(t.Context(), "ann", account.Close{}); err == nil {
				closing++
			}
		}
	}
	at, err := p.Transfers.Load(t.Context(), "t")
	got := at.State
	if err != nil || got.Stage != transfer.StageReturned || balance(t, p, "unclaimed") != 30 || closing == 0 {
		t.Errorf("the transfer is %+v, %v; the bank has %d", got, err, balance(t, p, "unclaimed"))
	}
}

// A transfer that has to be accepted is delivered once it is, or returned when its time has run out. The money is in one place.
func TestAcceptance(t *testing.T) {
	p := estest.NewProcess(t, time.Time{})
	accounts := estest.Add(p, "account", account.Rules{}, account.Codec)
	transfers := estest.Add(p, transfer.Kind, transfer.Rules{}, transfer.Codec)
	process := transfer.Process{Transfers: transfers.Repo, Accounts: accounts.Repo, Unclaimed: "unclaimed", Limit: time.Hour}
	p.React(process.Reaction(1), process.Expiry())
	for id, cents := range map[string]int64{"ann": 100, "bob": 0} {
		accounts.Given(id, account.Opened{Owner: id})
		if cents > 0 {
			accounts.Given(id, account.Deposited{Amount: cents})
		}
	}
	balances := func(ann, bob int64) {
		t.Helper()
		if a, b := balance(t, process, "ann"), balance(t, process, "bob"); a != ann || b != bob {
			t.Errorf("ann has %d and bob %d, want %d and %d", a, b, ann, bob)
		}
	}
	for _, id := range []string{"accepted", "forgotten"} {
		if err := transfers.When(id, transfer.Ask{From: "ann", To: "bob", Amount: 30, Acceptance: true}); err != nil {
			t.Fatal(err)
		}
	}
	balances(40, 0)
	p.Advance(time.Hour - time.Second)
	balances(40, 0)
	if err := transfers.When("accepted", transfer.Accept{}); err != nil {
		t.Fatal(err)
	}
	transfers.Then("accepted", transfer.Accepted{}, transfer.Brought{})
	balances(40, 30)
	p.Advance(time.Second)
	transfers.Then("accepted")
	transfers.Then("forgotten", transfer.Turned{Code: transfer.NotAccepted}, transfer.Returned{Account: "ann"})
	balances(70, 30)
	if err := transfers.When("forgotten", transfer.Accept{}); err == nil {
		t.Error("a returned transfer was accepted")
	}
	balances(70, 30)
}
