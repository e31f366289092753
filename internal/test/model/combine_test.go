package model_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The protocol by which processes combine their appends on Postgres (see postgres/combine.go), as a state machine. The test visits every state
// that three processes with two requests each can reach with a few faults.
//
// Each request is tried at most twice, each time under a token of its own. What the server does in one transaction is two steps: it takes the
// lock, and it commits. Between them it may crash, or end the transaction.

const (
	processes = 3
	requests  = 2 // of each process
	tries     = 2 // of each request
	tokens    = processes * requests * tries
)

type tokenSet uint16

func (s tokenSet) has(t int) bool { return s>>t&1 == 1 }
func only(t int) tokenSet         { return 1 << t }

// The states of a call at the server. It goes on when its client is gone.
const (
	absent    = iota
	arriving  // in the network
	waiting   // its request was left, and it waits for the lock
	holding   // it has the lock, and has not committed
	succeeded // with an answer that its client has not read
	failed
	gone     // there was neither request nor answer
	declined // another call could not write it
)

// The states of a client.
const (
	idle = iota
	calling
	resolving
	ended
)

// What the caller of a request was told.
const (
	nothing = iota
	written
	notWritten
	unknown
)

// A machine is a state. It is comparable.
type machine struct {
	// Of the server. The unlogged tables are left and answers.
	left, answers, declines tokenSet
	events, fences          tokenSet
	twice                   bool     // a token was written twice
	holder                  int8     // the token of the call with the lock plus one; 0 if it is free
	pending, refused        tokenSet // what the call with the lock writes and declines
	calls                   [tokens]int8

	clients [processes]client
	crashes, losses, ends,
	leaves, sweeps int8 // faults that may still happen
}

type client struct {
	state, request, try int8
	told                [requests]int8
}

func (c client) token(process int) int {
	return (process*requests+int(c.request))*tries + int(c.try)
}

// A protocol is the rules, with what may be broken.
type protocol struct {
	old               bool // the last process is of a release that appends directly
	noFence           bool // resolve only removes the request
	keepsRequest      bool // a request that was served stays
	answersEarly      bool // an answer can be read before the commit
	errorIsNotWritten bool // an error of a call is told as not written
	goneIsNotWritten  bool // a call without request and answer is told as not written
	resolvesUnlocked  bool // resolve does not take the lock
	servesFenced      bool // fences are checked only for the own request
}

func (p protocol) direct(process int) bool { return p.old && process == processes-1 }

// next calls see with each state that follows. A step that no other process can see, and that excludes none, is taken at once.
func (p protocol) next(m machine, all func(step string, m machine)) {
	see := func(step string, m machine) {
		m.forget()
		all(step, m)
	}
	for i, c := range m.clients {
		if c.state == idle || c.state == calling && m.calls[c.token(i)] == succeeded {
			kept := m
			m.losses, m.leaves = 0, 0
			p.client(m, i, func(step string, next machine) {
				next.losses, next.leaves = kept.losses, kept.leaves
				see(step, next)
			})
			return
		}
	}
	for i := range processes {
		p.client(m, i, see)
	}
	for t := range tokens {
		p.call(m, t, see)
	}
	if m.crashes > 0 {
		m.crashes--
		m.left, m.answers, m.declines, m.holder, m.pending, m.refused = 0, 0, 0, 0, 0, 0
		m.calls = [tokens]int8{}
		for i := range m.clients {
			if m.clients[i].state == calling {
				m.clients[i].state = resolving
			}
		}
		see("crash", m)
	}
}

// forget removes what nothing depends on any more, so that states that differ only in it are one.
func (m *machine) forget() {
	for i, c := range m.clients {
		for r := range requests {
			settled := c.told[r] != nothing
			for try := range tries {
				t := (i*requests+r)*tries + try
				current := !settled && r == int(c.request) && try == int(c.try) && c.state == calling
				if !current && m.calls[t] >= succeeded {
					m.calls[t] = absent
				}
				past := settled || r == int(c.request) && try < int(c.try)
				if past && m.calls[t] == absent && !m.left.has(t) && !m.pending.has(t) {
					m.fences &^= only(t)
					m.answers &^= only(t)
					m.declines &^= only(t)
				}
			}
		}
	}
}

func (p protocol) client(m machine, i int, see func(string, machine)) {
	c := &m.clients[i]
	t := c.token(i)
	before := m
	again := func(step string) { // tries again, or tells that nothing was written
		kept := m
		if c.try+1 < tries {
			c.try++
			c.state = idle
			see(step+", tries again", m)
			m = kept
		}
		c.tell(notWritten)
		see(step+", tells not written", m)
		m = before
	}
	switch c.state {
	case idle:
		m.calls[t], c.state = arriving, calling
		see(fmt.Sprint("send ", t), m)
	case calling:
		switch m.calls[t] {
		case succeeded:
			m.calls[t] = absent
			c.tell(written)
			see(fmt.Sprint("learn ", t), m)
		case declined:
			m.calls[t] = absent
			again(fmt.Sprint("declined ", t))
		case failed, gone:
			was := m.calls[t]
			m.calls[t] = absent
			if was == failed && p.errorIsNotWritten || was == gone && p.goneIsNotWritten {
				again(fmt.Sprint("error ", t))
				break
			}
			c.state = resolving
			see(fmt.Sprint("error ", t), m)
		}
		if m = before; m.losses > 0 {
			m.losses--
			m.clients[i].state = resolving
			see(fmt.Sprint("lose ", t), m)
		}
	case resolving:
		if m.holder != 0 && !p.resolvesUnlocked {
			break
		}
		if m.events.has(t) {
			c.tell(written)
			see(fmt.Sprint("resolve ", t), m)
			break
		}
		if !p.noFence {
			m.fences |= only(t)
		}
		if !p.direct(i) { // an older release does not know of requests
			m.left &^= only(t)
		}
		again(fmt.Sprint("resolve ", t))
	}
	m = before
	if (c.state == calling || c.state == resolving) && m.leaves > 0 {
		m.leaves--
		c.tell(unknown)
		see(fmt.Sprint("leave ", t), m)
	}
}

// tell ends a request.
func (c *client) tell(what int8) {
	c.told[c.request] = what
	c.request, c.try, c.state = c.request+1, 0, idle
	if c.request == requests {
		c.request, c.state = requests-1, ended
	}
}

func (p protocol) call(m machine, t int, see func(string, machine)) {
	direct := p.direct(t / (requests * tries))
	before := m
	switch m.calls[t] {
	case arriving:
		m.calls[t] = waiting
		if !direct {
			m.left |= only(t)
		}
		see(fmt.Sprint("left ", t), m)
	case waiting:
		switch {
		case p.answersEarly && m.answers.has(t):
			m.calls[t] = succeeded
			see(fmt.Sprint("early ", t), m)
		case m.holder != 0:
		case m.answers.has(t):
			m.calls[t] = succeeded
			see(fmt.Sprint("find ", t), m)
		case m.declines.has(t):
			m.calls[t] = declined
			see(fmt.Sprint("find ", t), m)
		case !direct && !m.left.has(t):
			m.calls[t] = gone
			see(fmt.Sprint("gone ", t), m)
		case m.fences.has(t):
			m.calls[t] = failed
			see(fmt.Sprint("fenced ", t), m)
		default:
			m.calls[t], m.holder, m.pending = holding, int8(t+1), only(t)
			see(fmt.Sprint("alone ", t), m) // the limits may leave out all others
			if others := m.left &^ only(t); !direct && others != 0 {
				m.pending |= others
				if p.answersEarly {
					m.answers |= others
				}
				if fenced := others & m.fences; !p.servesFenced {
					m.pending, m.refused = m.pending&^fenced, fenced
				}
				see(fmt.Sprint("serve ", t), m)
			}
		}
		if m = before; m.ends > 0 {
			m.ends--
			m.calls[t] = failed
			see(fmt.Sprint("time-out ", t), m)
		}
	case holding:
		m.twice = m.twice || m.events&m.pending != 0
		m.events |= m.pending
		if !direct {
			m.answers |= m.pending &^ only(t)
			m.declines |= m.refused
			if !p.keepsRequest {
				m.left &^= m.pending | m.refused
			}
		}
		m.calls[t], m.holder, m.pending, m.refused = succeeded, 0, 0, 0
		see(fmt.Sprint("commit ", t), m)
		if m = before; m.ends > 0 {
			m.ends--
			m.calls[t], m.holder, m.pending, m.refused = failed, 0, 0, 0
			see(fmt.Sprint("end ", t), m)
		}
	}
	if m = before; m.sweeps > 0 && m.answers.has(t) && m.holder == 0 {
		m.sweeps--
		m.answers &^= only(t)
		see(fmt.Sprint("sweep ", t), m)
	}
}

// A share is the part of a state that belongs to a process.
type share struct {
	client                                                    client
	calls                                                     [requests * tries]int8
	left, answers, declines, events, fences, pending, refused tokenSet
	holder                                                    int8
}

// sort orders the processes, so that states that differ only in their order are one.
func (m *machine) sort() {
	const each = requests * tries
	var shares [processes]share
	for i := range shares {
		at, mask := i*each, tokenSet(1<<each-1)
		s := share{client: m.clients[i], left: m.left >> at & mask, answers: m.answers >> at & mask, declines: m.declines >> at & mask,
			events: m.events >> at & mask, fences: m.fences >> at & mask, pending: m.pending >> at & mask, refused: m.refused >> at & mask}
		copy(s.calls[:], m.calls[at:])
		if h := int(m.holder) - 1 - at; h >= 0 && h < each {
			s.holder = int8(h + 1)
		}
		shares[i] = s
	}
	slices.SortFunc(shares[:], share.compare)
	m.left, m.answers, m.declines, m.events, m.fences, m.pending, m.refused, m.holder = 0, 0, 0, 0, 0, 0, 0, 0
	for i, s := range shares {
		at := i * each
		m.clients[i] = s.client
		copy(m.calls[at:], s.calls[:])
		m.left |= s.left << at
		m.answers |= s.answers << at
		m.declines |= s.declines << at
		m.events |= s.events << at
		m.fences |= s.fences << at
		m.pending |= s.pending << at
		m.refused |= s.refused << at
		if s.holder > 0 {
			m.holder = s.holder + int8(at)
		}
	}
}

func (s share) compare(o share) int {
	return cmp.Or(slices.Compare([]int8{s.client.state, s.client.request, s.client.try}, []int8{o.client.state, o.client.request, o.client.try}),
		slices.Compare(s.client.told[:], o.client.told[:]), slices.Compare(s.calls[:], o.calls[:]),
		cmp.Compare(s.left, o.left), cmp.Compare(s.answers, o.answers), cmp.Compare(s.declines, o.declines), cmp.Compare(s.events, o.events),
		cmp.Compare(s.fences, o.fences), cmp.Compare(s.pending, o.pending), cmp.Compare(s.refused, o.refused), cmp.Compare(s.holder, o.holder))
}

// violation returns the promise that a state breaks, or "".
func (m machine) violation() string {
	if m.twice {
		return "a token is written twice"
	}
	for i, c := range m.clients {
		for r := range requests {
			n := 0
			for try := range tries {
				if m.events.has((i*requests+r)*tries + try) {
					n++
				}
			}
			switch {
			case n > 1:
				return "a request is written twice"
			case c.told[r] == written && n == 0:
				return "a request that was told as written is not there"
			case c.told[r] == notWritten && n > 0:
				return "a request that was told as not written is there"
			}
		}
	}
	return ""
}

// explore visits the reachable states and returns their number, and the steps to a violation, if there is one.
func (p protocol) explore(faults machine) (states int, violation string) {
	type origin struct {
		from machine
		step string
	}
	origins := map[machine]origin{faults: {}}
	queue := []machine{faults}
	for len(queue) > 0 {
		m := queue[0]
		queue = queue[1:]
		after := 0
		var broken *machine
		p.next(m, func(step string, next machine) {
			after++
			if !p.old {
				next.sort()
			}
			if _, seen := origins[next]; seen {
				return
			}
			origins[next] = origin{m, step}
			queue = append(queue, next)
			if next.violation() != "" && broken == nil {
				broken = &next
			}
		})
		what := ""
		if broken != nil {
			what = broken.violation()
		} else if after == 0 {
			for _, c := range m.clients {
				if c.state != ended {
					what, broken = "a caller waits forever", &m
				}
			}
		}
		if broken != nil {
			var steps []string
			for at := *broken; at != faults; at = origins[at].from {
				steps = append([]string{origins[at].step}, steps...)
			}
			return len(origins), what + ": " + strings.Join(steps, "; ")
		}
	}
	return len(origins), ""
}

// budgets are the faults of the explorations: each alone, and pairs. All of them at once would take minutes.
var budgets = []machine{
	{},
	{losses: 1},
	{crashes: 1},
	{ends: 1},
	{leaves: 1},
	{sweeps: 1},
	{losses: 1, crashes: 1},
	{losses: 1, ends: 1},
}

func TestCombiningKeepsEachPromise(t *testing.T) {
	t.Parallel()
	for _, p := range []protocol{{}, {old: true}} {
		for _, faults := range budgets {
			states, violation := p.explore(faults)
			if violation != "" {
				t.Errorf("%+v: %s", p, violation)
			}
			t.Logf("%d states", states)
		}
	}
}

// broken are protocols with a seeded fault each.
var broken = map[string]protocol{
	"no fence":                             {noFence: true},
	"a served request stays":               {keepsRequest: true},
	"an answer before the commit":          {answersEarly: true},
	"an error is told as not written":      {errorIsNotWritten: true},
	"no answer is told as not written":     {goneIsNotWritten: true},
	"resolve does not take the lock":       {resolvesUnlocked: true},
	"a fenced request is served by others": {servesFenced: true},
}

func TestBrokenCombiningIsFound(t *testing.T) {
	t.Parallel()
	for name, p := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, faults := range budgets {
				if _, violation := p.explore(faults); violation != "" {
					t.Log(violation)
					return
				}
			}
			t.Error("no violation was found")
		})
	}
}
