// Package group lets concurrent callers share work. The first caller leads: it works for itself, in its own goroutine. Callers that join
// while it works wait. Afterwards they are served together in rounds, by a goroutine that takes all that wait, until none does.
//
// A caller may leave at any time, because its context is done. What that means depends on the phase of its call; see [Group.Leave].
// The context of a round ends when the last of its callers leaves, so one caller's cancellation never affects another.
//
// Three parts of the toolkit work like this:
//   - internal/commit: a call is an append, a round is a transaction. If others have joined while the leader opened its transaction, it puts
//     its own call back, and a goroutine writes all of them in that transaction. A round claims its calls as it is taken.
//   - Repo: a call is a command, each aggregate has a group, and a round decides and appends together. The leader works on a round of its own
//     (Lead). A round claims its calls right before it appends, and unclaims them after a conflict. If a call's rules call runtime.Goexit,
//     the other calls of its round are put back.
//   - postgres: a call is the first read of a stream, a round is a query for many streams. It has its own rule for reading alone and up to two
//     rounds at the same time, so it calls Wait in place of Join, and never Next.
//
// A Group has no lock. It is guarded by a lock of its user, so that it can be part of a larger structure, such as a map of groups. The caller of
// each function and method in this package must hold that lock, except for [Member.Done].
package group

import "context"

// Member is the part of a call that a Group needs. A type of calls embeds it. Its zero value is ready for use.
type Member struct {
	done  chan struct{} // closed when the call is answered; nil for one that leads
	phase phase
	round *round // nil while the call waits for one
}

func (m *Member) member() *Member { return m }

// Done returns a channel that is closed when the call is answered. It is nil for a call that leads.
// It may be called without the lock once Join, Wait or PutBack has returned.
func (m *Member) Done() <-chan struct{} { return m.done }

// Call is a pointer to a type that embeds [Member].
type Call interface{ member() *Member }

type phase int8

const (
	waiting  phase = iota // no work for the call has an effect yet
	claimed               // its work may have an effect
	answered              // its result is known
	left                  // its caller left without waiting for the result
)

// Outcome is what a caller that leaves knows about its call.
type Outcome int

const (
	Withdrawn Outcome = iota // the call had no effect and will have none
	Abandoned                // the call was claimed: it may have an effect, and its round goes on for other callers
	Last                     // the call was claimed, and the round's context is now canceled: Done is closed soon
	Answered                 // the call was answered before: Done is closed
)

// Group is the calls that wait for work, and whether a caller or a goroutine is working. Its zero value is idle.
type Group[C Call] struct {
	waiting []C
	present int                // calls in waiting whose callers have not left
	abandon context.CancelFunc // ends the preparation of the next round
	busy    bool
}

// Join reports whether the group was idle. If so, the caller leads: it must work on its call and then call Next.
// If not, the call waits, as with Wait.
func (g *Group[C]) Join(c C) (lead bool) {
	if g.busy {
		g.Wait(c)
		return false
	}
	g.busy = true
	return true
}

// Busy reports whether a caller that joins would wait.
func (g *Group[C]) Busy() bool { return g.busy }

// Wait adds a call to those that wait.
func (g *Group[C]) Wait(c C) {
	c.member().done = make(chan struct{})
	g.waiting = append(g.waiting, c)
	g.present++
}

// PutBack makes calls wait for the next round, ahead of those that wait already. None of them may have been answered.
// A call that led becomes one that waits.
func (g *Group[C]) PutBack(calls ...C) {
	front := make([]C, 0, len(calls)+len(g.waiting))
	for _, c := range calls {
		m := c.member()
		if m.phase == left {
			continue
		}
		m.phase, m.round = waiting, nil
		if m.done == nil {
			m.done = make(chan struct{})
		}
		front = append(front, c)
	}
	g.present += len(front)
	g.waiting = append(front, g.waiting...)
}

// Joined returns how many calls have begun to wait since the last round was taken, including those whose callers have left again.
func (g *Group[C]) Joined() int { return len(g.waiting) }

// Waiting returns how many calls wait for a round.
func (g *Group[C]) Waiting() int { return g.present }

// Next reports whether callers wait for a round. If none does, the group is idle again.
// The leader must call it when it is done, also after a panic or runtime.Goexit, and start a goroutine for the next rounds if it returns true.
func (g *Group[C]) Next() bool {
	g.abandon = nil
	if g.present == 0 {
		g.waiting, g.busy = nil, false
	}
	return g.busy
}

// Prepare returns a context in which to prepare the next round. It ends when the last waiting caller leaves before the round is taken.
func (g *Group[C]) Prepare() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	g.abandon = cancel
	return ctx, cancel
}

// Lead returns a round of one call, which its caller works on. Its context is the caller's own.
func (g *Group[C]) Lead(c C) *Round[C] {
	r := &Round[C]{one: [1]C{c}}
	r.Calls = r.one[:]
	r.live = 1
	c.member().round = &r.round
	return r
}

// Take moves the waiting calls into a round, in their order, up to the first that fits rejects; nil accepts all.
// The round is empty if all callers have left.
func (g *Group[C]) Take(fits func(c C, first bool) bool) *Round[C] {
	r := &Round[C]{}
	r.Calls = make([]C, 0, min(g.present, maxRoom))
	g.abandon = nil
	i := 0
	for ; i < len(g.waiting); i++ {
		c := g.waiting[i]
		if c.member().phase == left {
			continue
		}
		if fits != nil && !fits(c, len(r.Calls) == 0) {
			break
		}
		c.member().round = &r.round
		r.Calls = append(r.Calls, c)
	}
	r.live = len(r.Calls)
	g.present -= len(r.Calls)
	clear(g.waiting[:i])
	g.waiting = g.waiting[i:]
	return r
}

const maxRoom = 1 << 10 // calls for which a round makes room at once

// Leave takes out a call whose context is done. After Last, the caller usually waits for Done, as the work for its call is ending and its result
// will be known. After Withdrawn and Abandoned it must not wait, as it gets no answer.
func (g *Group[C]) Leave(c C) Outcome {
	m := c.member()
	switch {
	case m.phase == answered:
		return Answered
	case m.phase == claimed && m.round.live == 1:
		m.round.end()
		return Last
	case m.phase == claimed:
		m.phase = left
		m.round.live--
		return Abandoned
	case m.phase == waiting && m.round != nil:
		m.round.less()
	case m.phase == waiting:
		if g.present--; g.present == 0 && g.abandon != nil {
			g.abandon()
		}
	}
	m.phase = left
	return Withdrawn
}

// Round is calls that are worked on together.
type Round[C Call] struct {
	Calls []C // in the order in which they joined
	one   [1]C
	round
}

// round is the part of a Round that does not depend on the type of its calls.
type round struct {
	live   int // calls that are neither answered nor left
	cancel context.CancelFunc
}

// Context returns a context that has the values of parent and ends when the last caller of the round leaves or is answered.
// The end of parent does not end it. If all callers have left before the round was taken, it does not end.
func (r *round) Context(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	r.cancel = cancel
	return ctx
}

func (r *round) less() {
	if r.live--; r.live == 0 {
		r.end()
	}
}

func (r *round) end() {
	if r.cancel != nil {
		r.cancel()
	}
}

// Claim notes that work with an effect is about to begin for calls of a round. It returns those that are neither answered nor left: the work must
// be done for these only. If there are any others, the result is a copy.
func Claim[C Call](calls []C) []C {
	n := 0
	for n < len(calls) && !over(calls[n]) {
		calls[n].member().phase = claimed
		n++
	}
	if n == len(calls) {
		return calls
	}
	open := append(make([]C, 0, len(calls)-1), calls[:n]...)
	for _, c := range calls[n:] {
		if !over(c) {
			c.member().phase = claimed
			open = append(open, c)
		}
	}
	return open
}

// Unclaim notes that the work for calls had no effect.
func Unclaim[C Call](calls []C) {
	for _, c := range calls {
		if m := c.member(); m.phase == claimed {
			m.phase = waiting
		}
	}
}

// Answer hands calls of a round to their callers, with the results that are in them. It ignores those that are answered or left.
func Answer[C Call](calls ...C) {
	for _, c := range calls {
		if over(c) {
			continue
		}
		m := c.member()
		m.phase = answered
		m.round.less()
		if m.done != nil {
			close(m.done)
		}
	}
}

// over reports whether no caller waits for the result of a call.
func over[C Call](c C) bool {
	p := c.member().phase
	return p == answered || p == left
}

// IsAnswered reports whether a call was answered.
func IsAnswered[C Call](c C) bool { return c.member().phase == answered }
