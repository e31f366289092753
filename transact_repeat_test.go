package es_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

func TestARepeatedTransactReturnsItsFirstOutcomes(t *testing.T) {
	store := newSpy()
	b := newBank(store)
	opened(t, b, "ann", 100)
	opened(t, b, "bob", 5)
	opened(t, b, "cem", 1)
	type outcome struct {
		Results []bankResult
		Codes   []string
	}
	var got outcome
	f := func(b *bank) func(*es.Tx) error {
		return func(tx *es.Tx) error {
			got = outcome{}
			for _, c := range []struct {
				id string
				account.Command
			}{
				{"cem", account.Withdraw{Amount: 50}}, // refused, which is handled
				{"ann", account.Withdraw{Amount: 50}},
				{"bob", account.Deposit{Amount: 40}},
				{"ann", account.Deposit{Amount: 1}},
				{"bob", account.Deposit{Amount: 9}},
				{"dan", account.Open{Owner: "Dan"}},
				{"dan", account.Open{Owner: "Dan"}}, // refused
			} {
				r, err := b.ExecuteTx(t.Context(), tx, c.id, c.Command)
				if err != nil && code(err) == err.Error() {
					return err
				}
				got.Results, got.Codes = append(got.Results, r), append(got.Codes, code(err))
			}
			return nil
		}
	}
	first, err := es.Transact(t.Context(), f(b), es.CommandID("x"))
	if err != nil || first != 11 {
		t.Fatal(first, err)
	}
	want := got
	for i := range want.Results {
		want.Results[i].Repeated = want.Codes[i] == ""
	}
	// Everything is different now: what was refused would be accepted, and the reverse.
	execute(t, b, "cem", account.Deposit{Amount: 1000})
	execute(t, b, "ann", account.Withdraw{Amount: 51})
	execute(t, b, "ann", account.Close{})
	head, err := es.Head(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	for name, repo := range map[string]*bank{"the same": b, "another": newBank(store)} {
		for _, options := range [][]es.ExecuteOption{{}, {es.NotAfter(time.Now().Add(-time.Hour))}} {
			last, err := es.Transact(t.Context(), f(repo), append(options, es.CommandID("x"))...)
			if err != nil || last != first {
				t.Errorf("%s: %d, %v; want the position of the first time, %d", name, last, err, first)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: not the first outcomes (-want +got):\n%s", name, diff)
			}
		}
	}
	if now, err := es.Head(t.Context(), store); err != nil || now != head {
		t.Errorf("repetitions have written: the head is %d, %v; want %d", now, err, head)
	}
	if s := b.Stats(); s.Repeated == 0 {
		t.Errorf("Stats: %+v", s)
	}
	if _, err := es.Transact(t.Context(), f(b), es.CommandID("y"), es.NotAfter(time.Now().Add(-time.Hour))); !errors.Is(err, es.ErrExpired) {
		t.Errorf("another command that came too late: %v; want ErrExpired", err)
	}
}

// A decision without events rested on the log before the transaction, which wrote what its query selects.
func TestARepeatedDecisionWithoutEventsRestsOnTheLogOfThen(t *testing.T) {
	log := newSpy()
	d := enrolment.New(log)
	enrol(t, d, enrolment.Define{Course: "go", Capacity: 5})
	var codes []string
	f := func(tx *es.Tx) error {
		codes = nil
		for _, c := range []enrolment.Command{
			enrolment.ChangeCapacity{Course: "go", Capacity: 5}, // nothing to do
			enrolment.Subscribe{Course: "go", Student: "ann"},   // refused
			enrolment.Register{Student: "ann"},
			enrolment.Register{Student: "ann"}, // refused
			enrolment.Subscribe{Course: "go", Student: "ann"},
		} {
			r, err := d.ExecuteTx(t.Context(), tx, c)
			codes = append(codes, fmt.Sprint(code(err), len(r.Events)))
		}
		return nil
	}
	first, err := es.Transact(t.Context(), f, es.CommandID("x"))
	if err != nil {
		t.Fatal(err)
	}
	want := codes
	enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 7})
	again, err := es.Transact(t.Context(), f, es.CommandID("x"))
	if err != nil || again != first || !cmp.Equal(want, codes) {
		t.Errorf("%d, %v, %q; want %d, %q", again, err, codes, first, want)
	}
	if head, err := es.Head(t.Context(), log); err != nil || head != first+1 {
		t.Errorf("the head is %d, %v; want %d", head, err, first+1)
	}
}

// Callers with one command id race. The account has enough for one of them only.
func TestATransactTakesEffectOnce(t *testing.T) {
	store := new(es.Mem)
	repos := []*bank{newBank(store), newBank(store), newBank(store)}
	opened(t, repos[0], "ann", 10)
	opened(t, repos[0], "bob", 5)
	var callers sync.WaitGroup
	for n := range 24 {
		callers.Go(func() { transfer(t, repos[n%3], "ann", "bob", 10, es.CommandID("x")) })
	}
	callers.Wait()
	holds(t, store, map[string]int64{"ann": 0, "bob": 15})
}

func TestAnUnknownOutcomeIsResolvedByTheCommandID(t *testing.T) {
	for _, written := range []bool{true, false} {
		store := newSpy()
		b := newBank(store)
		opened(t, b, "ann", 40)
		opened(t, b, "bob", 5)
		store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			store.append = nil
			if written {
				if _, err := write(); err != nil {
					t.Error(err)
				}
			}
			return 0, es.ErrUnknownOutcome
		}
		var none [2]bankResult
		if _, err := es.Transact(t.Context(), move(t.Context(), b, "ann", "bob", 30, &none), es.CommandID("x")); !errors.Is(err, es.ErrUnknownOutcome) {
			t.Fatal(err)
		}
		store.take()
		results, last := transfer(t, b, "ann", "bob", 30, es.CommandID("x"))
		if last != 6 || results[0].State.Balance != 10 || results[0].Repeated != written || results[1].Repeated != written {
			t.Errorf("written %t: %d, %+v", written, last, results)
		}
		if n := store.take(); len(n.Reads) < 2 {
			t.Errorf("written %t: a state from before the unknown outcome was used: %+v", written, n)
		}
		holds(t, store, map[string]int64{"ann": 10, "bob": 35})
	}
}

func TestAStepOfATransact(t *testing.T) {
	for _, by := range []string{"x.1", ""} {
		store := newSpy()
		b := newBank(store)
		opened(t, b, "ann", 40)
		opened(t, b, "bob", 5)
		ctx := handling(t, by, caused, "user")
		for range 2 {
			var results [2]bankResult
			if last, err := es.Transact(ctx, move(t.Context(), b, "ann", "bob", 30, &results), es.Step("pay")); err != nil || last != 6 {
				t.Fatal(last, err)
			}
		}
		for _, r := range collect(t, store, 4) {
			if diff := cmp.Diff(map[string]string{"user": "ann", es.MetaCorrelation: "c", es.MetaCausation: "order/7/3"}, r.Meta); diff != "" {
				t.Errorf("metadata of %s (-want +got):\n%s", r.ID(), diff)
			}
		}
	}
}

func TestMetaAndTracerOfATransact(t *testing.T) {
	store := newSpy()
	opened(t, newBank(store), "ann", 10)
	opened(t, newBank(store), "bob", 10)
	b, x := newBank(store), new(tracer)
	b.Tracer, b.Meta = x, func(ctx context.Context) map[string]string {
		if ctx.Value(traceKey{}) != x {
			t.Error("Meta got another context than that of the Tracer")
		}
		return map[string]string{"user": "ann", "by": "nightly"}
	}
	intrude(store, func() { execute(t, newBank(store.Log), "bob", account.Deposit{Amount: 1}) })
	transfer(t, b, "ann", "bob", 5, es.Meta(map[string]string{"by": "clerk"}), es.CommandID("x"))
	lost, sent := es.CommandTrace{Attempts: 1, BatchSize: 2}, es.CommandTrace{Events: 1, Attempts: 1, BatchSize: 2}
	var conflict *es.ConflictError
	for i, got := range x.take() {
		want := sent
		if i < 2 {
			want = lost
			if !errors.As(got.Err, &conflict) {
				t.Errorf("the trace of a run that had a conflict: %+v", got)
			}
			got.Err = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("trace %d (-want +got):\n%s", i, diff)
		}
	}
	for _, r := range collect(t, store, 5) {
		if diff := cmp.Diff(map[string]string{"user": "ann", "by": "clerk"}, r.Meta); diff != "" {
			t.Errorf("metadata of %s (-want +got):\n%s", r.ID(), diff)
		}
	}
	transfer(t, b, "ann", "bob", 5, es.CommandID("x"))
	if got := x.take(); len(got) != 4 || got[3].Err != nil || !got[3].Repeated || got[3].Events != 1 {
		t.Errorf("traces of a repetition: %+v", got)
	}
	var results [2]bankResult
	_, err := es.Transact(t.Context(), move(t.Context(), b, "ann", "bob", 500, &results))
	if got := x.take(); err == nil || len(got) != 1 || !errors.Is(got[0].Err, err) {
		t.Errorf("traces of a refusal: %+v; want %v", got, err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = es.Transact(t.Context(), func(tx *es.Tx) error {
			_, _ = b.ExecuteTx(t.Context(), tx, "ann", account.Withdraw{Amount: 1})
			panic("mine")
		})
	}()
	if got := x.take(); len(got) != 1 || got[0].Err == nil || got[0].Events != 0 {
		t.Errorf("traces of a panic: %+v; want one, with an error", got)
	}
	if s := b.Stats(); s.Commands != s.Execute.Count() {
		t.Errorf("%d commands, %d in the histogram", s.Commands, s.Execute.Count())
	}
}
