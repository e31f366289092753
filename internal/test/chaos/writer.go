package chaos

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

type accounts = es.Repo[account.Account, account.Command, account.Event]

// A writer moves money in one of three ways. Each command has an id, and is sent again if its outcome is unknown.
type writer struct {
	*actor
	store    es.Store
	accounts *accounts
}

func newWriter(a *actor, store interface {
	es.Store
	es.Snapshots
}) *writer {
	w := &writer{a, store, es.NewRepo(store, kindAccount, account.Rules{}, account.Codec)}
	w.accounts.CacheSize = a.Accounts / 2 // so that some states are cached and some are not
	w.accounts.Snapshots, w.accounts.SnapshotEvery = store, 25
	return w
}

func runWriter(ctx context.Context, a *actor) error {
	store, err := a.open(ctx)
	if err != nil {
		return err
	}
	w := newWriter(a, store)
	if err := w.endow(ctx); err != nil {
		return errors.Join(err, w.accounts.Close(context.Background()), store.Close())
	}
	var work sync.WaitGroup
	for g := range a.Goroutines {
		work.Go(func() { w.run(ctx, g) })
	}
	work.Wait()
	return errors.Join(w.accounts.Close(context.Background()), store.Close())
}

// endow opens and funds the accounts. Every writer does so, and it takes effect once.
func (w *writer) endow(ctx context.Context) error {
	for n := range w.Accounts {
		id := accountID(n)
		if !w.insist(ctx, prefixOpen+id, id, account.Open{Owner: id}, account.Opened{Owner: id}) ||
			!w.insist(ctx, prefixFund+id, id, account.Deposit{Amount: endowment}, account.Deposited{Amount: endowment}) {
			return ctx.Err()
		}
	}
	return nil
}

func (w *writer) run(ctx context.Context, goroutine int) {
	random := w.random(goroutine)
	for n := 0; ctx.Err() == nil; n++ {
		from, to := w.pick(random), w.pick(random)
		if from == to {
			continue
		}
		t := transfer{from: accountID(from), to: accountID(to), amount: 1 + random.Int64N(500_00), patience: patience(random)}
		id := fmt.Sprintf("%s.%d.%d", w.id(), goroutine, n)
		switch k := random.IntN(10); {
		case k < 4:
			t.id, t.pieces = prefixAtomic+id, 1+random.IntN(2)
			w.atomic(ctx, t)
		case k < 8:
			t.id = prefixSteps + id
			w.steps(ctx, t)
		default:
			w.steps(ctx, w.salary(time.Now(), t.patience))
		}
		rest(ctx, time.Duration(random.Int64N(int64(30*time.Millisecond))))
	}
}

func (w *writer) pick(random *rand.Rand) int {
	if random.IntN(3) == 0 {
		return random.IntN(hotAccounts)
	}
	return random.IntN(w.Accounts)
}

// patience returns how long a caller waits for an answer: usually long enough, but not always.
func patience(random *rand.Rand) time.Duration {
	if random.IntN(8) == 0 {
		return time.Duration(1+random.IntN(50)) * time.Millisecond
	}
	return time.Duration(1+random.IntN(10)) * time.Second
}

func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A transfer moves money between two accounts.
type transfer struct {
	id, from, to string
	amount       int64
	pieces       int // number of events for each half of an atomic transfer
	patience     time.Duration
}

// salary returns the transfer of the current half second. All writers send it, between the same accounts.
func (w *writer) salary(now time.Time, patience time.Duration) transfer {
	moment := now.UnixMilli() / 500
	h := fnv.New64a()
	fmt.Fprint(h, w.Seed, moment)
	random := rand.New(rand.NewPCG(h.Sum64(), 0))
	from := random.IntN(hotAccounts)
	return transfer{
		id: fmt.Sprint(prefixShared, moment), from: accountID(from), to: accountID(hotAccounts + random.IntN(w.Accounts-hotAccounts)),
		amount: 1 + random.Int64N(10_00), patience: patience,
	}
}

// steps withdraws money from one account and, when that is acknowledged, deposits it in the other. If the process ends
// in between, the settler completes the transfer.
func (w *writer) steps(ctx context.Context, t transfer) {
	meta := map[string]string{metaTo: t.to}
	for try := 1; ; try++ {
		told := w.execute(ctx, t.id, t.from, account.Withdraw{Amount: t.amount}, account.Withdrawn{Amount: t.amount}, meta, t.patience)
		if told == Acknowledged {
			break
		}
		if told == Refused || try == 3 || ctx.Err() != nil {
			return
		}
		w.history.note(Entry{Kind: Retried})
	}
	w.insist(ctx, t.id, t.to, account.Deposit{Amount: t.amount}, account.Deposited{Amount: t.amount})
}

// insist sends a command until it is acknowledged or the process ends.
func (w *writer) insist(ctx context.Context, id, stream string, c account.Command, e account.Event) bool {
	for ctx.Err() == nil {
		switch w.execute(ctx, id, stream, c, e, nil, 10*time.Second) {
		case Acknowledged:
			return true
		case Refused:
			w.violated("%s on %s was refused although it must not be", id, stream)
			return true
		}
		w.history.note(Entry{Kind: Retried})
		rest(ctx, 20*time.Millisecond)
	}
	return false
}

// execute sends a command once and records the answer.
func (w *writer) execute(ctx context.Context, id, stream string, c account.Command, e account.Event, meta map[string]string, patience time.Duration) Kind {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // a process that is shutting down waits for its answers
	defer cancel()
	part := Part{Stream: es.Stream{Kind: kindAccount, ID: stream}, Events: []string{eventContent(e)}}
	w.history.note(Entry{Kind: Sent, Command: id, Parts: []Part{part}})
	result, err := w.accounts.Execute(ctx, stream, c, es.CommandID(id), es.Meta(map[string]string{es.MetaCorrelation: id}), es.Meta(meta))
	part.Events = nil
	if err == nil {
		if result.State.Balance < 0 {
			w.violated("%s has %d cents at version %d", part.Stream, result.State.Balance, result.Version)
		}
		if len(result.Events) != 1 || result.Events[0] != e {
			w.violated("%s on %s: requested %v, got %v", id, part.Stream, e, result.Events)
		}
		part.First, part.Last = result.Version, result.Version
		w.history.note(Entry{Kind: Acknowledged, Command: id, Parts: []Part{part}, Position: result.Position})
		return Acknowledged
	}
	return w.told(id, []Part{part}, err)
}

// told records an error.
func (w *writer) told(id string, parts []Part, err error) Kind {
	var invariant *es.InvariantError
	var conflict *es.ConflictError
	kind := Failed
	switch {
	case errors.Is(err, es.ErrUnknownOutcome):
		kind = Unknown
	case errors.Is(err, es.ErrRewound):
		w.violated("%s: the store reports that the database lost its end: %v", id, err)
	case errors.As(err, &invariant):
		kind = Refused
	case errors.As(err, &conflict):
		kind = Conflicted
	case errors.Is(err, es.ErrInvalid):
		w.violated("%s: %v", id, err)
	}
	w.history.note(Entry{Kind: kind, Command: id, Parts: parts, Text: err.Error()})
	return kind
}

// atomic moves money by one append to both streams, based on their current state.
func (w *writer) atomic(ctx context.Context, t transfer) {
	for range 5 {
		if ctx.Err() != nil {
			return
		}
		switch w.atomicOnce(ctx, t) {
		case Acknowledged:
			return
		case Conflicted, Failed, Unknown: // decide again
			w.history.note(Entry{Kind: Retried})
		default:
			return // nothing was sent
		}
	}
}

func (w *writer) atomicOnce(ctx context.Context, t transfer) Kind {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.patience)
	defer cancel()
	var appends []es.Append
	var parts []Part
	for i, id := range []string{t.from, t.to} {
		at, err := w.accounts.Load(ctx, id)
		state, version := at.State, at.Version
		if err != nil {
			return "" // the store is unavailable; the next attempt is another transfer
		}
		a := es.Append{Stream: es.Stream{Kind: kindAccount, ID: id}, Expected: version, Command: t.id}
		for piece := range t.pieces {
			amount := t.amount / int64(t.pieces)
			if piece == 0 {
				amount += t.amount % int64(t.pieces)
			}
			var c account.Command = account.Withdraw{Amount: amount}
			if i == 1 {
				c = account.Deposit{Amount: amount}
			}
			events, err := account.Rules{}.Decide(state, c)
			if err != nil {
				return "" // insufficient balance
			}
			for _, e := range events {
				a.Events = append(a.Events, encode(e, t.id))
				state = account.Rules{}.Evolve(state, e)
			}
		}
		part := Part{Stream: a.Stream}
		for _, r := range a.Events {
			part.Events = append(part.Events, content(r))
		}
		appends, parts = append(appends, a), append(parts, part)
	}
	w.history.note(Entry{Kind: Sent, Command: t.id, Parts: parts})
	position, err := w.store.Append(ctx, appends...)
	for i := range parts {
		n := es.Version(len(parts[i].Events))
		parts[i].Events, parts[i].First, parts[i].Last = nil, appends[i].Expected+1, appends[i].Expected+n
	}
	var duplicate *es.DuplicateError
	switch {
	case err == nil:
		w.history.note(Entry{Kind: Acknowledged, Command: t.id, Parts: parts, Position: position})
		return Acknowledged
	case errors.As(err, &duplicate): // an earlier attempt was written, and the error has its position on one stream; the other half must be in the log too
		w.history.note(Entry{Kind: Acknowledged, Command: t.id, Parts: []Part{{Stream: duplicate.Stream, First: duplicate.First, Last: duplicate.Last}}})
		return Acknowledged
	}
	return w.told(t.id, parts, err)
}

func encode(e account.Event, command string) es.Record {
	r, err := account.Codec.Encode(e)
	if err != nil {
		panic(err) // the codec has all events
	}
	r.Meta = map[string]string{es.MetaCorrelation: command}
	return r
}

func eventContent(e account.Event) string { return content(encode(e, "")) }
