// Package counted tests the counters of stores.
package counted

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// Store is a store that counts.
type Store interface {
	es.Log
	Stats() es.Stats // Stats returns the counters.
	Close() error    // Close closes the store.
}

// refusal is what the stores of Test have to refuse inline.
const refusal = "refused"

// Refuse is the handler of an inline projection that refuses the type of event that Test expects it to refuse. Its error wraps one that has a counter
// of its own.
func Refuse(records []es.Record) error {
	if slices.ContainsFunc(records, func(r es.Record) bool { return r.Type == refusal }) {
		return &es.ConflictError{Stream: records[0].Stream}
	}
	return nil
}

// Test tests the counters of an empty store. One of its inline projections has the handler Refuse.
func Test(t *testing.T, s Store) {
	write := func(want error, appends ...es.Append) {
		t.Helper()
		_, err := s.Append(t.Context(), appends...)
		if met := errors.Is(err, want) || errors.Is(want, errAny) && err != nil; !met {
			t.Fatalf("append: %v, want %v", err, want)
		}
	}
	event := func(id, kind string, expected es.Version, n int) es.Append {
		return es.Append{Stream: es.Stream{Kind: "counted", ID: id}, Expected: expected, Events: slices.Repeat([]es.Record{{Type: kind, Data: []byte("{}")}}, n)}
	}
	write(nil, event("a", "x", 0, 3), event("b", "x", 0, 1))
	write(errAny, event("a", "x", 1, 1))
	command := event("c", "x", 0, 2)
	command.Command = "once"
	write(nil, command)
	write(errAny, command)
	write(es.ErrInvalid, event("", "x", 0, 1))
	write(errAny, event("d", refusal, 0, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, event("e", "x", 0, 1)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}

	got := s.Stats()
	want := es.Stats{Appends: 7, Events: 6, Conflicts: 1, Duplicates: 1, Refused: 2, Failed: 1}
	if got.Appends != want.Appends || got.Events != want.Events || got.Conflicts != want.Conflicts || got.Duplicates != want.Duplicates ||
		got.Refused != want.Refused || got.Failed != want.Failed || got.Unknown != 0 || got.Waiting != 0 {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if n := got.Append.Count(); n != got.Appends || got.Append.Sum <= 0 {
		t.Errorf("%d calls took %v s, want the time of %d", n, got.Append.Sum, got.Appends)
	}
	// What is invalid or canceled has no transaction, the other five have one each. The first one has two appends.
	if n := got.Batch.Count(); got.Batches != 5 || n != 5 || got.BatchSize.Count() != 5 || got.BatchSize.Sum != 6 || got.Batch.Sum <= 0 {
		t.Errorf("got %d transactions, %d with a duration and %d with a size, %v appends in them, want 5 and 6", got.Batches, n, got.BatchSize.Count(), got.BatchSize.Sum)
	}
	if got.Batch.Sum > got.Append.Sum {
		t.Errorf("the transactions of one caller took %v s, and its calls %v s", got.Batch.Sum, got.Append.Sum)
	}
	traced(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(es.ErrClosed, event("f", "x", 0, 1))
	if failed := s.Stats().Failed; failed != want.Failed+1 {
		t.Errorf("%d calls have failed, want one more than %d for that to a closed store", failed, want.Failed)
	}
}

var errAny = errors.New("any error")

// traced tests that a Tracer learns what the counters say about the transactions of commands.
func traced(t *testing.T, s Store) {
	t.Helper()
	const commands = 200
	var tracer recorder
	repo := es.NewRepo(s, "traced", account.Rules{}, account.Codec)
	repo.Tracer = &tracer
	for i := range 5 {
		if _, err := repo.Execute(t.Context(), string(rune('a'+i)), account.Open{Owner: "ann"}); err != nil {
			t.Fatal(err)
		}
	}
	tracer.done = nil
	before := s.Stats()
	var all sync.WaitGroup
	for i := range commands {
		all.Go(func() {
			if _, err := repo.Execute(t.Context(), string(rune('a'+i%5)), account.Deposit{Amount: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(tracer.done) != commands {
		t.Fatalf("the tracer has seen %d of %d commands", len(tracer.done), commands)
	}
	largest := 0
	for _, d := range tracer.done {
		if d.Events != 1 || d.BatchSize < 1 || d.BatchSize > commands || d.Waited < 0 || d.Queued < 0 || d.Attempts == 0 {
			t.Errorf("a command has the trace %+v", d)
		}
		largest = max(largest, d.BatchSize)
	}
	after := s.Stats()
	if sent := int(after.BatchSize.Sum - before.BatchSize.Sum); largest > sent || sent < commands {
		t.Errorf("the largest batch had %d commands, and all batches %d, want at least %d", largest, sent, commands)
	}
}

// recorder is a tracer that keeps what it learns.
type recorder struct {
	mu   sync.Mutex
	done []es.CommandTrace
}

func (r *recorder) StartCommand(ctx context.Context, _ es.Stream) context.Context { return ctx }

func (r *recorder) EndCommand(_ context.Context, done es.CommandTrace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, done)
}
