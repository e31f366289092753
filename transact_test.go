package es_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

// move returns the function of a transfer. Its results are those of the last run.
func move(ctx context.Context, b *bank, from, to string, cents int64, results *[2]bankResult) func(*es.Tx) error {
	return func(tx *es.Tx) (err error) {
		if results[0], err = b.ExecuteTx(ctx, tx, from, account.Withdraw{Amount: cents}); err != nil {
			return err
		}
		results[1], err = b.ExecuteTx(ctx, tx, to, account.Deposit{Amount: cents})
		return err
	}
}

// transfer is a transfer that must succeed.
func transfer(t testing.TB, b *bank, from, to string, cents int64, options ...es.ExecuteOption) (results [2]bankResult, last es.Position) {
	t.Helper()
	last, err := es.Transact(t.Context(), move(t.Context(), b, from, to, cents, &results), options...)
	if err != nil {
		t.Fatalf("transfer from %s to %s: %v", from, to, err)
	}
	return results, last
}

// holds requires balances, as a Repo without cached states reads them.
func holds(t testing.TB, store es.Store, want map[string]int64) {
	t.Helper()
	got := make(map[string]int64)
	for id := range want {
		got[id], _ = balance(t, store, id)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("balances (-want +got):\n%s", diff)
	}
}

func TestTransactWritesBothOrNeither(t *testing.T) {
	store := newSpy()
	b := newBank(store)
	opened(t, b, "ann", 100)
	opened(t, b, "bob", 5)
	store.take()
	got, last := transfer(t, b, "ann", "bob", 30, es.Meta(map[string]string{"by": "clerk"}))
	want := [2]bankResult{
		{Versioned: es.Versioned[account.Account]{State: account.Account{Owner: "Ada", Balance: 70, Open: true}, Version: 3}, Events: []account.Event{account.Withdrawn{Amount: 30}}},
		{Versioned: es.Versioned[account.Account]{State: account.Account{Owner: "Ada", Balance: 35, Open: true}, Version: 3}, Events: []account.Event{account.Deposited{Amount: 30}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || last != 6 {
		t.Errorf("position %d, results (-want +got):\n%s", last, diff)
	}
	transfer(t, b, "bob", "ann", 1)
	if n := store.take(); len(n.Reads) != 0 || !cmp.Equal(n.Appends, []int{2, 2}) {
		t.Errorf("calls of the store: %+v; want one append of two for each transfer and no read, as all states were cached", n)
	}
	if r := stored(t, store, es.Stream{Kind: "account", ID: "bob"})[2]; r.Meta["by"] != "clerk" || r.Position != 6 {
		t.Errorf("stored %+v", r)
	}
	var none [2]bankResult
	if last, err := es.Transact(t.Context(), move(t.Context(), b, "ann", "zoe", 30, &none)); code(err) != "ACCOUNT_NOT_OPEN" || last != 0 {
		t.Errorf("a transfer to an account that is not open: %d, %v", last, err)
	}
	holds(t, store, map[string]int64{"ann": 71, "bob": 34})
	if s := b.Stats(); s.Commands != 10 || s.Refused != 1 || s.Retries != 0 {
		t.Errorf("Stats: %+v", s)
	}
}

func TestCommandsOfATransactBuildOnEachOther(t *testing.T) {
	store := newSpy()
	b := newBank(store)
	opened(t, b, "ann", 100)
	var results []bankResult
	last, err := es.Transact(t.Context(), func(tx *es.Tx) error {
		results = nil
		for _, c := range []account.Command{account.Withdraw{Amount: 100}, account.Close{}, account.Close{}} {
			r, err := b.ExecuteTx(t.Context(), tx, "ann", c)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
		_, err := newBank(store).ExecuteTx(t.Context(), tx, "ann", account.Open{}) // another Repo, whose state is read from the store
		if code(err) != "ACCOUNT_ALREADY_OPENED" {
			return fmt.Errorf("opened again: %w", err)
		}
		return nil
	}, es.CommandID("x"))
	if err != nil || last != 4 || len(results[2].Events) != 0 || results[2].Version != 4 || !results[2].State.Closed {
		t.Errorf("%d, %v, %+v", last, err, results)
	}
	if at, err := newBank(store).Load(t.Context(), "ann"); err != nil || !at.State.Closed || at.Version != 4 {
		t.Errorf("loaded %+v, %v", at, err)
	}
	store.take()
	if r, err := b.Execute(t.Context(), "ann", account.Close{}); err != nil || r.Version != 4 || r.Position != 4 {
		t.Errorf("the state after it: %+v, %v", r, err)
	}
}

// A Repo and Decisions write to one log. The query of a decision selects what the Transact itself has decided, also by others.
func TestDecisionsOfATransactSeeItsEvents(t *testing.T) {
	log := newSpy()
	d := enrolment.New(log)
	var last schoolResult
	enrolAll := func(students ...string) error {
		_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			for _, c := range append([]enrolment.Command{enrolment.Define{Course: "go", Capacity: 2}}, subscriptions(students)...) {
				var err error
				if last, err = d.ExecuteTx(t.Context(), tx, c); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	}
	if err := enrolAll("ann", "bob", "cem"); code(err) != "COURSE_FULL" {
		t.Errorf("three students of two places: %v", err)
	}
	if records := collect(t, log, 0); len(records) != 0 {
		t.Errorf("a refused Transact has written %d records", len(records))
	}
	if err := enrolAll("ann", "bob"); err != nil || last.State.Taken != 2 {
		t.Fatalf("%v, %+v", err, last)
	}
	if got := enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 3}); got.State.Taken != 2 || got.Position != 6 {
		t.Errorf("%+v", got)
	}
}

func subscriptions(students []string) (all []enrolment.Command) {
	for _, s := range students {
		all = append(all, enrolment.Register{Student: s}, enrolment.Subscribe{Course: "go", Student: s})
	}
	return all
}

func collect(t testing.TB, log es.Log, after es.Position) (records []es.Record) {
	t.Helper()
	for r, err := range log.All(t.Context(), after, es.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// Another writer changes one of two accounts between the decision and the append.
func TestTransactRunsAgainAfterAConflict(t *testing.T) {
	for _, changed := range []string{"ann", "bob"} {
		store := newSpy()
		b, other := newBank(store), newBank(store.Log)
		opened(t, b, "ann", 100)
		opened(t, b, "bob", 5)
		intrude(store, func() { execute(t, other, changed, account.Deposit{Amount: 1}) })
		store.take()
		results, last := transfer(t, b, "ann", "bob", 30)
		if n := store.take(); !cmp.Equal(n.Reads, []es.Version{1}) || len(n.Appends) != 2 {
			t.Errorf("%s changed: calls of the store: %+v; want one read, of the stream that has changed", changed, n)
		}
		if last != 7 || b.Stats().Retries != 1 {
			t.Errorf("%s changed: position %d, %+v", changed, last, b.Stats())
		}
		want := map[string]int64{"ann": 70, "bob": 35}
		want[changed]++
		holds(t, store, want)
		if results[0].State.Balance != want["ann"] || results[1].State.Balance != want["bob"] {
			t.Errorf("%s changed: %+v", changed, results)
		}
	}
}

// intrude runs a function once before the next append.
func intrude(store *spy, f func()) {
	store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
		store.append = nil
		f()
		return write()
	}
}

// What a Transact only reads, what had nothing to do, and what was refused must be current too.
func TestTransactRestsOnWhatItDoesNotWrite(t *testing.T) {
	for name, test := range map[string]struct {
		before int64           // the balance of ann
		ask    account.Command // that has no events
		change account.Command
	}{
		"a refusal that is handled":  {5, account.Withdraw{Amount: 10}, account.Deposit{Amount: 5}},
		"a command without an event": {0, account.Close{}, nil},
	} {
		store := newSpy()
		b, other := newBank(store), newBank(store.Log)
		opened(t, b, "ann", max(1, test.before))
		opened(t, b, "bob", 50)
		if test.change == nil {
			execute(t, b, "ann", account.Withdraw{Amount: 1})
			execute(t, b, "ann", account.Close{})
		}
		runs, from := 0, ""
		intrude(store, func() {
			if test.change != nil {
				execute(t, other, "ann", test.change)
			}
		})
		last, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			runs++
			from = "ann"
			_, err := b.ExecuteTx(t.Context(), tx, "ann", test.ask)
			if code(err) == "INSUFFICIENT_FUNDS" || test.change == nil {
				from = "bob"
				_, err = b.ExecuteTx(t.Context(), tx, "bob", account.Withdraw{Amount: 10})
			}
			return err
		})
		want, wantRuns := "bob", 1
		if test.change != nil {
			want, wantRuns = "ann", 2
		}
		if err != nil || from != want || runs != wantRuns || last == 0 {
			t.Errorf("%s: from %s in %d runs, %d, %v; want %s in %d", name, from, runs, last, err, want, wantRuns)
		}
	}
}

// Two persons are on duty, and each may leave only if the other one stays. Both decide at once.
func TestTransactsDoNotSkew(t *testing.T) {
	store := newSpy()
	leave := func(repo *tallies, who, other string) error {
		_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			there, err := repo.ExecuteTx(t.Context(), tx, other, add())
			if err != nil {
				return err
			}
			if there.State.N == 0 {
				return errAlone
			}
			_, err = repo.ExecuteTx(t.Context(), tx, who, add(-1))
			return err
		})
		return err
	}
	here, there := newTally(store), newTally(store.Log)
	for _, who := range []string{"ann", "bob"} {
		if _, err := here.Execute(t.Context(), who, add(1)); err != nil {
			t.Fatal(err)
		}
	}
	intrude(store, func() {
		if err := leave(there, "bob", "ann"); err != nil {
			t.Error(err)
		}
	})
	if err := leave(here, "ann", "bob"); !errors.Is(err, errAlone) {
		t.Errorf("both have left: %v", err)
	}
}

var errAlone = errors.New("no other person is on duty")

// A cached state says that there is not enough, but money came in by another process.
func TestRefusalsOfATransactAreConfirmed(t *testing.T) {
	store := newSpy()
	b, other := newBank(store), newBank(store.Log)
	opened(t, b, "ann", 10)
	opened(t, b, "bob", 5)
	execute(t, other, "ann", account.Deposit{Amount: 20})
	transfer(t, b, "ann", "bob", 30)
	holds(t, store, map[string]int64{"ann": 0, "bob": 35})

	// The refusal of the second command rests on the first one too, though the state of the second is current.
	fresh := newBank(store)
	execute(t, fresh, "ann", account.Deposit{Amount: 1})
	execute(t, other, "ann", account.Deposit{Amount: 10})
	runs := 0
	_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
		runs++
		ann, err := fresh.ExecuteTx(t.Context(), tx, "ann", account.Deposit{Amount: 1})
		if err == nil {
			_, err = fresh.ExecuteTx(t.Context(), tx, "bob", account.Withdraw{Amount: ann.State.Balance + 25})
		}
		return err
	})
	if code(err) != "INSUFFICIENT_FUNDS" || runs != 2 {
		t.Errorf("%v in %d runs; want a refusal in 2", err, runs)
	}

	// Nothing is asked where the only state was read in this Transact, and where nothing was decided.
	store.take()
	if _, err := es.Transact(t.Context(), func(tx *es.Tx) error {
		_, err := newBank(store).ExecuteTx(t.Context(), tx, "bob", account.Withdraw{Amount: 1000})
		return err
	}); code(err) != "INSUFFICIENT_FUNDS" {
		t.Error(err)
	}
	if last, err := es.Transact(t.Context(), func(*es.Tx) error { return nil }); last != 0 || err != nil {
		t.Error(last, err)
	}
	if n := store.take(); len(n.Appends) != 0 || len(n.Reads) != 1 {
		t.Errorf("calls of the store: %+v; want one read", n)
	}
}

func TestExpectVersionOfATransact(t *testing.T) {
	store := newSpy()
	b, other := newBank(store), newBank(store.Log)
	opened(t, b, "ann", 40)
	withdraw := func(version es.Version) error {
		_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			_, err := b.ExecuteTx(t.Context(), tx, "ann", account.Withdraw{Amount: 1}, es.ExpectVersion(version))
			return err
		})
		return err
	}
	var conflict *es.ConflictError
	if err := withdraw(1); !errors.As(err, &conflict) || conflict.Expected != 1 || conflict.Stream.ID != "ann" {
		t.Errorf("another version: %v; want a *ConflictError", err)
	}
	if err := withdraw(2); err != nil {
		t.Error(err)
	}
	execute(t, other, "ann", account.Deposit{Amount: 1}) // the cached state has version 3
	if err := withdraw(4); err != nil {
		t.Errorf("the version that the store has: %v", err)
	}
	if err := withdraw(4); !errors.As(err, &conflict) {
		t.Errorf("a version that has passed: %v; want a *ConflictError", err)
	}
}

func TestTransactGivesUp(t *testing.T) {
	for _, test := range []struct{ retries, attempts int }{{0, 17}, {-1, 1}, {3, 4}} {
		store := newSpy()
		b, patient := newBank(store), newBank(store)
		b.Retries, patient.Retries = test.retries, 100
		opened(t, patient, "ann", 40)
		opened(t, b, "bob", 40)
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			execute(t, newBank(store.Log), "bob", account.Deposit{Amount: 1})
			return write()
		}
		runs := 0
		_, err := es.Transact(t.Context(), func(tx *es.Tx) error {
			runs++
			if _, err := patient.ExecuteTx(t.Context(), tx, "ann", account.Withdraw{Amount: 1}); err != nil {
				return err
			}
			_, err := b.ExecuteTx(t.Context(), tx, "bob", account.Deposit{Amount: 1})
			return err
		})
		var conflict *es.ConflictError
		if !errors.As(err, &conflict) || runs != test.attempts || !strings.Contains(err.Error(), fmt.Sprintf("gave up after %d attempts", test.attempts)) {
			t.Errorf("%d retries: %d runs, %v; want %d runs", test.retries, runs, err, test.attempts)
		}
		holds(t, store, map[string]int64{"ann": 40})
	}
}

// The log is restored from an older copy. No state of the lost history survives, also not that of another participant.
func TestTransactAfterARestore(t *testing.T) {
	log := newSpy()
	b, d := newBank(log), enrolment.New(log)
	opened(t, b, "ann", 40)
	enrol(t, d, enrolment.Define{Course: "go", Capacity: 5})
	enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 7})
	log.Log = new(es.Mem)
	opened(t, newBank(log.Log), "ann", 5)
	enrol(t, enrolment.New(log.Log), enrolment.Define{Course: "go", Capacity: 1})
	var got bankResult
	var course schoolResult
	_, err := es.Transact(t.Context(), func(tx *es.Tx) (err error) {
		if course, err = d.ExecuteTx(t.Context(), tx, enrolment.ChangeCapacity{Course: "go", Capacity: 8}); err != nil {
			return err
		}
		got, err = b.ExecuteTx(t.Context(), tx, "ann", account.Deposit{Amount: 1})
		return err
	})
	if err != nil || got.State.Balance != 6 || course.State.Capacity != 8 {
		t.Errorf("%+v, %+v, %v", got, course, err)
	}
}

func TestTransactsKeepTheSum(t *testing.T) {
	const accounts, each, callers = 6, 20, 24
	store := new(es.Mem)
	var repos []*bank
	for range 3 {
		b := newBank(store)
		b.Retries = 10_000
		repos = append(repos, b)
	}
	want := make(map[string]int64)
	for a := range accounts {
		opened(t, repos[0], fmt.Sprint(a), 100)
		want[fmt.Sprint(a)] = 100
	}
	var mu sync.Mutex
	var racing sync.WaitGroup
	for c := range callers {
		racing.Go(func() {
			for n := range each {
				from, to := fmt.Sprint((c+n)%accounts), fmt.Sprint((c*7+n*3+1)%accounts)
				var results [2]bankResult
				if n%4 == 0 { // beside commands on one account
					if _, err := repos[c%3].Execute(t.Context(), from, account.Deposit{Amount: 1}); err != nil {
						t.Error(err)
					}
					mu.Lock()
					want[from]++
					mu.Unlock()
				}
				_, err := es.Transact(t.Context(), move(t.Context(), repos[(c+n)%3], from, to, 5, &results))
				mu.Lock()
				switch code(err) {
				case "":
					want[from], want[to] = want[from]-5, want[to]+5
				case "INSUFFICIENT_FUNDS":
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	racing.Wait()
	holds(t, store, want)
	for id := range want { // cached states are those of the store
		for n, b := range repos {
			if at, err := b.Load(t.Context(), id); err != nil || at.State.Balance != want[id] {
				t.Errorf("repo %d: %s has %d, %v; want %d", n, id, at.State.Balance, err, want[id])
			}
		}
	}
}
