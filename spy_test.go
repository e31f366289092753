package es_test

import (
	"context"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// spy is a log that records its calls and lets a test intercept them.
type spy struct {
	es.Log

	// append, if set, takes the place of Append; write is what it would have done.
	append func(ctx context.Context, appends []es.Append, write func() (es.Position, error)) (es.Position, error)

	// read, if set, is asked before each Read; its error is what the Read comes to.
	read func(ctx context.Context) error

	mu    sync.Mutex
	notes notes
}

// notes are the calls that a spy recorded.
type notes struct {
	Reads   []es.Version // the after of each
	Records int          // that were read
	Appends []int        // how many appends each call had
	Changed int
	Alls    []es.Position // the after of each All
}

func newSpy() *spy { return &spy{Log: new(es.Mem)} }

func (s *spy) note(f func(n *notes)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.notes)
}

// take returns the notes and resets them.
func (s *spy) take() (n notes) {
	s.note(func(all *notes) { n, *all = *all, notes{} })
	return n
}

func (s *spy) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	s.note(func(n *notes) { n.Appends = append(n.Appends, len(appends)) })
	write := func() (es.Position, error) { return s.Log.Append(ctx, appends...) }
	if s.append == nil {
		return write()
	}
	return s.append(ctx, appends, write)
}

func (s *spy) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		s.note(func(n *notes) { n.Reads = append(n.Reads, after) })
		if s.read != nil {
			if err := s.read(ctx); err != nil {
				yield(es.Record{}, err)
				return
			}
		}
		for r, err := range s.Log.Read(ctx, stream, after) {
			s.note(func(n *notes) { n.Records++ })
			if !yield(r, err) {
				return
			}
		}
	}
}

func (s *spy) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	s.note(func(n *notes) { n.Alls = append(n.Alls, after) })
	return s.Log.All(ctx, after, filter)
}

func (s *spy) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	s.note(func(n *notes) { n.Changed++ })
	return s.Log.Changed(ctx, after)
}

// The bank is that of the example. Its rules refuse, do nothing, or write.
type bank = es.Repo[account.Account, account.Command, account.Event]

type bankResult = es.Result[account.Account, account.Event]

func newBank(store es.Store) *bank {
	return es.NewRepo(store, "account", account.Rules{}, account.Codec)
}

// execute runs a command that must succeed.
func execute(t testing.TB, b *bank, id string, c account.Command, options ...es.ExecuteOption) bankResult {
	t.Helper()
	result, err := b.Execute(t.Context(), id, c, options...)
	if err != nil {
		t.Fatalf("%T on %s: %v", c, id, err)
	}
	return result
}

// opened opens an account and deposits an amount. The account then has version 2.
func opened(t testing.TB, b *bank, id string, cents int64) {
	t.Helper()
	execute(t, b, id, account.Open{Owner: "Ada"})
	execute(t, b, id, account.Deposit{Amount: cents})
}

// stored returns the records of a stream.
func stored(t testing.TB, store es.Store, stream es.Stream) []es.Record {
	t.Helper()
	var records []es.Record
	for r, err := range store.Read(t.Context(), stream, 0) {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// balance loads an account from the store, by a Repo without cached states.
func balance(t testing.TB, store es.Store, id string) (int64, es.Version) {
	t.Helper()
	at, err := newBank(store).Load(t.Context(), id)
	a, version := at.State, at.Version
	if err != nil {
		t.Fatal(err)
	}
	return a.Balance, version
}

// tally is the smallest aggregate, a sum. Its commands are functions, so that a test can do anything within Decide.
type tally struct {
	evolve func(added) // called before each Evolve, if set
}

type (
	do    func(total) ([]added, error)
	added struct{ N int }
	total struct{ N int }
)

func (tally) Decide(s total, c do) ([]added, error) { return c(s) }

func (r tally) Evolve(s total, e added) total {
	if r.evolve != nil {
		r.evolve(e)
	}
	return total{s.N + e.N}
}

var tallyCodec = es.JSON(map[string]added{"added": {}})

func newTally(store es.Store) *es.Repo[total, do, added] {
	return es.NewRepo(store, "tally", tally{}, tallyCodec)
}

// add is a command that adds numbers, one event each.
func add(numbers ...int) do {
	return func(total) ([]added, error) {
		var events []added
		for n := range slices.Values(numbers) {
			events = append(events, added{n})
		}
		return events, nil
	}
}

type tallies = es.Repo[total, do, added]

// caller is an Execute on tally/1 in its own goroutine. Its results may be read after done is closed.
type caller struct {
	done     chan struct{}
	result   es.Result[total, added]
	err      error
	panicked any
	exited   bool // the goroutine was ended by runtime.Goexit
}

func call(ctx context.Context, repo *tallies, c do, options ...es.ExecuteOption) *caller {
	k := &caller{done: make(chan struct{}), exited: true}
	go func() {
		defer close(k.done)
		defer func() {
			if k.panicked = recover(); k.panicked != nil {
				k.exited = false
			}
		}()
		k.result, k.err = repo.Execute(ctx, "1", c, options...)
		k.exited = false
	}()
	return k
}

func (k *caller) answered() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// crowd starts callers in order while the lane of tally/1 is busy adding 1, so that they share one round, and waits for
// the bubble to be idle. The notes are the calls that the lane then made to the store. It needs a synctest bubble.
func crowd(store *spy, repo *tallies, starts ...func() *caller) ([]*caller, notes) {
	hold := make(chan struct{})
	next := store.append
	store.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
		<-hold
		return write()
	}
	call(context.Background(), repo, add(1))
	synctest.Wait()
	callers := make([]*caller, len(starts))
	for i, start := range starts {
		callers[i] = start()
		synctest.Wait()
	}
	store.append = next
	store.take()
	close(hold)
	synctest.Wait()
	return callers, store.take()
}
