package linear_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sqlite"
)

// Transactions over several numbers: those of three streams, and one that is decided over a tag. No number is ever negative.

// A transaction changes numbers, all or none. Without changes it reads all.
type transaction struct {
	ID   string
	By   [4]int // the last is that of the tag
	Only bool   // one number is changed, by Execute
}

// An outcome is what a transaction has answered: the numbers that it has changed, or all that it has read.
type outcome struct {
	After   [4]int
	Refused bool
}

// everything is the state of the model.
type everything struct {
	numbers [4]int
	done    map[string]outcome
}

// apply is the model of a transaction.
func (s everything) apply(t transaction) (everything, outcome) {
	if o, found := s.done[t.ID]; found {
		return s, o
	}
	next, changed := s.numbers, false
	var o outcome
	for i, by := range t.By {
		next[i] += by
		if next[i] < 0 {
			return s, outcome{Refused: true}
		}
		if by != 0 {
			changed = true
			o.After[i] = next[i]
		}
	}
	if !changed {
		return s, outcome{After: s.numbers}
	}
	s.numbers = next
	if t.ID != "" {
		s.done = maps.Clone(s.done)
		if s.done == nil {
			s.done = make(map[string]outcome)
		}
		s.done[t.ID] = o
	}
	return s, o
}

var transactions = porcupine.Model{
	Init: func() any { return everything{} },
	Step: func(before, input, output any) (bool, any) {
		after, want := before.(everything).apply(input.(transaction))
		return output.(outcome) == want, after
	},
	Equal: func(a, b any) bool {
		one, two := a.(everything), b.(everything)
		return one.numbers == two.numbers && maps.Equal(one.done, two.done)
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}

type delta struct{ By int }

var errNegative = errors.New("the number would be negative")

type numberRules struct{}

func (numberRules) Decide(n int, c delta) ([]delta, error) {
	switch {
	case n+c.By < 0:
		return nil, errNegative
	case c.By == 0:
		return nil, nil
	}
	return []delta{c}, nil
}

func (numberRules) Evolve(n int, e delta) int { return n + e.By }

// numbers runs transactions on a log.
type numbers struct {
	repo *es.Repo[int, delta, delta]
	tag  *es.Decisions[int, delta, delta]
}

func newNumbers(log es.Log) *numbers {
	n := &numbers{
		es.NewRepo(log, "number", numberRules{}, es.JSON(map[string]delta{"changed": {}})),
		es.NewDecisions(log, numberRules{}, es.JSON(map[string]delta{"changed": {}}).Tag(func(delta) []string { return []string{"number"} }), func(c delta) es.Boundary[int] {
			return es.Boundary[int]{Query: []es.Filter{{Tags: []string{"number"}}}, Stream: es.Stream{Kind: "tagged", ID: fmt.Sprint(c.By)}}
		}),
	}
	n.repo.Retries, n.tag.Retries = 10_000, 10_000
	return n
}

func (n *numbers) run(ctx context.Context, t transaction) (o outcome, err error) {
	var options []es.ExecuteOption
	if t.ID != "" {
		options = append(options, es.CommandID(t.ID))
	}
	if t.Only {
		for i, by := range t.By {
			if by != 0 {
				o.After[i], err = n.one(ctx, nil, i, by, options...)
			}
		}
	} else {
		_, err = es.Transact(ctx, func(tx *es.Tx) (err error) {
			o = outcome{}
			for i, by := range t.By {
				if by != 0 || t.By == [4]int{} {
					if o.After[i], err = n.one(ctx, tx, i, by); err != nil {
						return err
					}
				}
			}
			return nil
		}, options...)
	}
	if errors.Is(err, errNegative) {
		return outcome{Refused: true}, nil
	}
	return o, err
}

// one changes one number.
func (n *numbers) one(ctx context.Context, tx *es.Tx, i, by int, options ...es.ExecuteOption) (int, error) {
	var r es.Result[int, delta]
	var err error
	switch {
	case i < 3 && tx != nil:
		r, err = n.repo.ExecuteTx(ctx, tx, fmt.Sprint(i), delta{by})
	case i < 3:
		r, err = n.repo.Execute(ctx, fmt.Sprint(i), delta{by}, options...)
	case tx != nil:
		r, err = n.tag.ExecuteTx(ctx, tx, delta{by})
	default:
		r, err = n.tag.Execute(ctx, delta{by}, options...)
	}
	return r.State, err
}

// random returns a transaction, some of them with one of few ids.
func random(r *rand.Rand) (t transaction) {
	switch r.IntN(5) {
	case 0: // reads all
	case 1:
		t.Only = true
		t.By[r.IntN(4)] = 1 + r.IntN(3)
	default:
		t.By[r.IntN(4)] = -1 - r.IntN(3)
		t.By[r.IntN(4)] = 1 + r.IntN(3)
	}
	return t
}

// closing is a log that must be closed.
type closing interface {
	es.Log
	Close() error
}

// kept opens a log for a test.
func kept(t *testing.T, open func() (closing, error)) es.Log {
	t.Helper()
	log, err := open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}

func TestTransactionsAreLinearizable(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (first, second es.Log){
		"Mem": func(*testing.T) (first, second es.Log) { log := new(es.Mem); return log, log },
		"SQLite": func(t *testing.T) (first, second es.Log) {
			path := filepath.Join(t.TempDir(), "es.db")
			return kept(t, func() (closing, error) { return sqlite.Open(path) }), kept(t, func() (closing, error) { return sqlite.Open(path) })
		},
		"Postgres": func(t *testing.T) (first, second es.Log) {
			url := testserver.Postgres(t, testserver.Postgres18).Database(t)
			connect := func() (closing, error) { return postgres.Open(t.Context(), url) }
			return kept(t, connect), kept(t, connect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			const clients, each = 5, 24
			first, second := open(t)
			processes := []*numbers{newNumbers(first), newNumbers(second)}
			var mu sync.Mutex
			var history []porcupine.Operation
			begin := time.Now()
			var all sync.WaitGroup
			for c := range clients {
				all.Go(func() {
					r := rand.New(rand.NewPCG(uint64(c), 7))
					for n := range each {
						call := random(r)
						if n%3 == 0 && call.By != [4]int{} {
							call.ID = fmt.Sprint(c, " ", n)
						}
						for range 1 + n%2 { // some are repeated
							start := time.Since(begin).Nanoseconds()
							o, err := processes[(c+n)%2].run(t.Context(), call)
							if err != nil {
								t.Error(err)
								return
							}
							end := time.Since(begin).Nanoseconds()
							mu.Lock()
							history = append(history, porcupine.Operation{ClientId: c, Input: call, Output: o, Call: start, Return: end})
							mu.Unlock()
						}
					}
				})
			}
			all.Wait()
			result, info := porcupine.CheckOperationsVerbose(transactions, history, 2*time.Minute)
			if result == porcupine.Ok {
				return
			}
			evidence := t.ArtifactDir() + "/transactions.html"
			if err := porcupine.VisualizePath(transactions, info, evidence); err != nil {
				t.Error(err)
			}
			t.Errorf("no order of %d transactions explains their answers (%v): see %s", len(history), result, evidence)
		})
	}
}

// Histories that no order explains, and next to each one that an order does.
func TestTheCheckerOfTransactionsFinds(t *testing.T) {
	give := func(by ...int) transaction { return transaction{By: [4]int(by)} }
	after := func(n ...int) outcome { return outcome{After: [4]int(n)} }
	operation := func(client int, call transaction, o outcome, start, end int64) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: call, Output: o, Call: start, Return: end}
	}
	deposit := operation(0, give(1, 1, 0, 0), after(1, 1, 0, 0), 0, 1)
	for name, test := range map[string]struct{ wrong, right []porcupine.Operation }{
		"a read between the two halves": {
			[]porcupine.Operation{deposit, operation(1, give(-1, 0, 1, 0), after(0, 0, 1, 0), 2, 5), operation(2, give(0, 0, 0, 0), after(0, 1, 0, 0), 2, 5)},
			[]porcupine.Operation{deposit, operation(1, give(-1, 0, 1, 0), after(0, 0, 1, 0), 2, 5), operation(2, give(0, 0, 0, 0), after(1, 1, 0, 0), 2, 5)},
		},
		"one number spent twice": {
			[]porcupine.Operation{deposit, operation(1, give(-1, 0, 1, 0), after(0, 0, 1, 0), 2, 5), operation(2, give(-1, 0, 0, 1), after(0, 0, 0, 1), 2, 5)},
			[]porcupine.Operation{deposit, operation(1, give(-1, 0, 1, 0), after(0, 0, 1, 0), 2, 5), operation(2, give(-1, 0, 0, 1), outcome{Refused: true}, 2, 5)},
		},
		"a refusal by a state that was over before the call": {
			[]porcupine.Operation{deposit, operation(1, give(-1, 0, 1, 0), outcome{Refused: true}, 2, 3)},
			[]porcupine.Operation{deposit, operation(1, give(-2, 0, 1, 0), outcome{Refused: true}, 2, 3)},
		},
		"a command that took effect twice": {
			[]porcupine.Operation{operation(0, transaction{ID: "x", By: [4]int{1, 1, 0, 0}}, after(1, 1, 0, 0), 0, 1), operation(0, transaction{ID: "x", By: [4]int{1, 1, 0, 0}}, after(2, 2, 0, 0), 2, 3)},
			[]porcupine.Operation{operation(0, transaction{ID: "x", By: [4]int{1, 1, 0, 0}}, after(1, 1, 0, 0), 0, 1), operation(0, transaction{ID: "x", By: [4]int{1, 1, 0, 0}}, after(1, 1, 0, 0), 2, 3)},
		},
	} {
		if porcupine.CheckOperations(transactions, test.wrong) {
			t.Errorf("%s was not found", name)
		}
		if !porcupine.CheckOperations(transactions, test.right) {
			t.Errorf("%s: the right history was refused", name)
		}
	}
}
