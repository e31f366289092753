package conformance

import (
	"errors"
	"fmt"

	"github.com/thalo-go/es"
)

// transactClauses test what es.Transact needs of a store: several streams, questions, conditions and commands in one call.
func transactClauses() []clause {
	return []clause{
		{"transactions over two streams keep the sum",
			"es.Transact takes from one stream and gives to another by one call of Append. A store that writes half of a call, or does not check every version of it, makes or loses money.",
			transfersKeepTheSum},
		{"transactions cannot skew a rule over two streams",
			"Each reads both streams and writes one of them. The stream that a transaction only reads is an append without events, and the store must check its version together with the others.",
			transactionsDoNotSkew},
		{"a repeated transaction has its first outcome on every stream",
			"The id of the command is recorded on each stream that gets events. A store that records it on some of them makes the caller believe that the others got none.",
			transactionsTakeEffectOnce},
		{"a transaction over a stream and a decision is written by one call",
			"The version of the stream and the condition of the decision are checked together. Otherwise the seat is paid and not taken, or taken twice.",
			paidSeats},
	}
}

// sum is an aggregate, a number that must not be negative.
type sum struct{}

type change struct {
	N   int
	Tag string
}

var errNegative = errors.New("the sum would be negative")

func (sum) Decide(n int, c change) ([]change, error) {
	switch {
	case n+c.N < 0:
		return nil, errNegative
	case c.N == 0:
		return nil, nil
	}
	return []change{c}, nil
}

func (sum) Evolve(n int, e change) int { return n + e.N }

// sums returns a Repo of numbers, and Decisions over those that have a tag.
func sums(l es.Log) (*es.Repo[int, change, change], *es.Decisions[int, change, change]) {
	codec := es.JSON(map[string]change{"changed": {}})
	repo := es.NewRepo(l, "sum", sum{}, codec)
	tagged := es.JSON(map[string]change{"changed": {}}).Tag(func(e change) []string { return []string{e.Tag} })
	decisions := es.NewDecisions(l, sum{}, tagged, func(c change) es.Boundary[int] {
		return es.Boundary[int]{Query: []es.Filter{{Tags: []string{c.Tag}}}, Stream: es.Stream{Kind: "tagged sum", ID: c.Tag}}
	})
	repo.Retries, decisions.Retries = 10_000, 10_000
	return repo, decisions
}

// set gives streams their first sums.
func (t *trial) set(repo *es.Repo[int, change, change], n int, ids ...string) {
	for _, id := range ids {
		if _, err := repo.Execute(t.ctx, id, change{N: n}); err != nil {
			t.Fatalf("Execute: %v", err)
		}
	}
}

// sumsAre requires the sums of streams, as a Repo without cached states reads them.
func (t *trial) sumsAre(l es.Log, want map[string]int) {
	repo, _ := sums(l)
	got := make(map[string]int)
	for id := range want {
		at, err := repo.Load(t.ctx, id)
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		got[id] = at.State
	}
	t.equal("the sums of the streams", got, want)
}

func transfersKeepTheSum(t *trial) {
	const callers, each, streams, amount = 8, 6, 3, 10
	stores := []es.Log{t.log(), t.log()}
	var repos []*es.Repo[int, change, change]
	for _, l := range stores {
		repo, _ := sums(l)
		repos = append(repos, repo)
	}
	t.set(repos[0], 2*amount, "0", "1", "2")
	moved := make([][streams]int, callers)
	t.race(callers, func(c int) {
		for n := range each {
			repo, from, to := repos[(c+n)%2], (c+n)%streams, (c+2*n+1)%streams
			var first es.Position
			for repeated := range 2 {
				last, err := es.Transact(t.ctx, func(tx *es.Tx) error {
					if _, err := repo.ExecuteTx(t.ctx, tx, fmt.Sprint(from), change{N: -amount}); err != nil {
						return err
					}
					_, err := repo.ExecuteTx(t.ctx, tx, fmt.Sprint(to), change{N: amount})
					return err
				}, es.CommandID(fmt.Sprint(c, " ", n)))
				if repeated == 0 && errors.Is(err, errNegative) {
					break
				}
				if err != nil {
					t.Fatalf("a transfer, repeated %d times: %v", repeated, err)
				}
				if repeated == 0 {
					first = last
					moved[c][from] -= amount
					moved[c][to] += amount
				} else if last != first {
					t.Errorf("a repeated transfer returned position %d: want that of the first time, %d", last, first)
				}
			}
		}
	})
	want := make(map[string]int)
	for s := range streams {
		want[fmt.Sprint(s)] = 2 * amount
		for c := range moved {
			want[fmt.Sprint(s)] += moved[c][s]
		}
	}
	t.sumsAre(t.log(), want)
}

func transactionsDoNotSkew(t *trial) {
	const pairs = 12
	here, _ := sums(t.log())
	there, _ := sums(t.log())
	var left [pairs][2]bool
	for pair := range pairs {
		t.set(here, 1, fmt.Sprint(pair, " 0"), fmt.Sprint(pair, " 1"))
	}
	t.race(2*pairs, func(i int) {
		pair, side := i/2, i%2
		repo := []*es.Repo[int, change, change]{here, there}[(pair+side)%2]
		_, err := es.Transact(t.ctx, func(tx *es.Tx) error {
			other, err := repo.ExecuteTx(t.ctx, tx, fmt.Sprint(pair, " ", 1-side), change{})
			if err != nil {
				return err
			}
			if other.State == 0 {
				return errNegative
			}
			_, err = repo.ExecuteTx(t.ctx, tx, fmt.Sprint(pair, " ", side), change{N: -1})
			return err
		})
		if left[pair][side] = err == nil; err != nil && !errors.Is(err, errNegative) {
			t.Errorf("a transaction that reads a stream and writes another: %v", err)
		}
	})
	for pair, l := range left {
		if l[0] == l[1] {
			t.Errorf("of two transactions that read both streams and wrote one each, in pair %d, both succeeded: %t; want one of them to", pair, l[0])
		}
	}
}

func transactionsTakeEffectOnce(t *trial) {
	l := t.log()
	repo, decisions := sums(l)
	t.set(repo, 5, "a", "b")
	var got []es.Result[int, change]
	run := func(repo *es.Repo[int, change, change], decisions *es.Decisions[int, change, change]) es.Position {
		last, err := es.Transact(t.ctx, func(tx *es.Tx) error {
			got = nil
			for _, step := range []func() (es.Result[int, change], error){
				func() (es.Result[int, change], error) { return repo.ExecuteTx(t.ctx, tx, "c", change{}) },
				func() (es.Result[int, change], error) { return repo.ExecuteTx(t.ctx, tx, "a", change{N: -5}) },
				func() (es.Result[int, change], error) {
					return decisions.ExecuteTx(t.ctx, tx, change{N: 2, Tag: "t"})
				},
				func() (es.Result[int, change], error) { return repo.ExecuteTx(t.ctx, tx, "b", change{N: 5}) },
				func() (es.Result[int, change], error) { return repo.ExecuteTx(t.ctx, tx, "b", change{N: 1}) },
			} {
				r, err := step()
				if err != nil {
					return err
				}
				got = append(got, r)
			}
			return nil
		}, es.CommandID("once"))
		if err != nil {
			t.Fatalf("a transaction: %v", err)
		}
		return last
	}
	first := run(repo, decisions)
	want := got
	for i := range want {
		want[i].Repeated = true
	}
	t.set(repo, 7, "a", "b", "c")
	again := run(sums(t.log()))
	t.equal("the position of a repeated transaction", again, first)
	t.equal("the outcomes of a repeated transaction", got, want)
	t.sumsAre(l, map[string]int{"a": 7, "b": 18, "c": 7})
}

func paidSeats(t *trial) {
	const callers, seats, price = 12, 3, 10
	var stores [2]struct {
		repo      *es.Repo[int, change, change]
		decisions *es.Decisions[int, change, change]
	}
	for i := range stores {
		stores[i].repo, stores[i].decisions = sums(t.log())
	}
	t.set(stores[0].repo, 2*price, "0", "1")
	if _, err := stores[0].decisions.Execute(t.ctx, change{N: seats, Tag: "seats"}); err != nil {
		t.Fatalf("Execute: %v", err)
	}
	taken := make([]int, callers)
	t.race(callers, func(c int) {
		s := stores[c%2]
		_, err := es.Transact(t.ctx, func(tx *es.Tx) error {
			if _, err := s.repo.ExecuteTx(t.ctx, tx, fmt.Sprint(c/2%2), change{N: -price}); err != nil {
				return err
			}
			_, err := s.decisions.ExecuteTx(t.ctx, tx, change{N: -1, Tag: "seats"})
			return err
		})
		switch {
		case err == nil:
			taken[c]++
		case !errors.Is(err, errNegative):
			t.Errorf("a seat that is paid: %v", err)
		}
	})
	paid, total := map[string]int{"0": 2 * price, "1": 2 * price}, 0
	for c, n := range taken {
		paid[fmt.Sprint(c/2%2)] -= n * price
		total += n
	}
	t.sumsAre(t.log(), paid)
	at, err := func() (es.Versioned[int], error) {
		_, decisions := sums(t.log())
		return decisions.Load(t.ctx, change{Tag: "seats"})
	}()
	if err != nil || at.State != seats-total || total != seats {
		t.Errorf("%d seats were taken and paid, and %d of %d are left, %v: want all of them taken, as there was money for four", total, at.State, seats, err)
	}
}
