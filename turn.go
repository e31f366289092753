package es

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// turnWait is how long a transaction waits for another one of this process that uses the same subject. After that it goes on and may conflict. The
// limit is for functions that wait for something else, such as another Transact of the same subject within.
const turnWait = time.Second

// turn lets the transactions of one process use a subject one after the other, so that they do not conflict with each other. It only saves
// attempts: what is written does not rest on it. Transactions that wait for each other in a circle are avoided by the rules of [Tx.takeTurns].
type turn struct {
	taken chan struct{} // has an element while a transaction has it
	users int           // guarded by core.mu
}

// coreNumbers numbers the cores, for an order of all subjects.
var coreNumbers atomic.Uint64

// join returns the turn of a subject. core.mu must be held.
func (k *core[S, C, E]) join(key string) *turn {
	t := k.turns[key]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		if k.turns == nil {
			k.turns = make(map[string]*turn)
		}
		k.turns[key] = t
	}
	t.users++
	return t
}

// takeTurn takes the turn of the subject. It reports whether it has it.
func (p *part[S, C, E]) takeTurn(ctx context.Context, wait bool) bool {
	if p.has {
		return true
	}
	select {
	case p.turn.taken <- struct{}{}:
		p.has = true
		return true
	default:
	}
	if !wait {
		return false
	}
	limit := time.NewTimer(turnWait)
	defer limit.Stop()
	select {
	case p.turn.taken <- struct{}{}:
		p.has = true
	case <-limit.C:
	case <-ctx.Done():
	}
	return p.has
}

func (p *part[S, C, E]) endTurn() {
	if p.has {
		<-p.turn.taken
		p.has = false
	}
}

func (p *part[S, C, E]) place() (core uint64, key string) { return p.core.number, p.on.lane() }

// takeTurns takes the turns of all subjects of the last run, before another one. All transactions take them in one order and have none before, so none
// waits for one that waits for it. In a run, a transaction waits for the turn of a new subject only if it has no other.
func (tx *Tx) takeTurns() {
	ordered := slices.SortedFunc(slices.Values(tx.parts), func(a, b participant) int {
		core, key := a.place()
		otherCore, otherKey := b.place()
		return cmp.Or(cmp.Compare(core, otherCore), cmp.Compare(key, otherKey))
	})
	for _, p := range ordered {
		if p.used() {
			p.takeTurn(tx.ctx, true)
		}
	}
}

// takeTurn takes the turn of a new subject, and waits for it if this transaction has no other.
func (tx *Tx) takeTurn(ctx context.Context, p participant) {
	if p.takeTurn(ctx, !tx.hasTurn) {
		tx.hasTurn = true
	}
}
