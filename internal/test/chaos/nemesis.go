package chaos

import (
	"slices"
	"time"

	"github.com/thalo-go/es/internal/test/testserver"
)

// A fault is one thing that the nemesis does. While it lasts nothing else is done to what it is about.
type fault struct {
	name   string
	kind   kind
	weight int                 // how often it is in the deck
	about  func(r *run) string // what it is about, "" if there is nothing to do it to
	do     func(r *run, about string) strike
}

// A kind is what faults are done to, for the summary.
type kind string

const (
	kindProcesses kind = "processes"
	kindSQL       kind = "within postgres"
	kindServer    kind = "postgres"
	kindNetwork   kind = "network of postgres"
	kindBrokers   kind = "brokers"
	kindBroking   kind = "network of kafka"
)

// A strike is what became of a fault.
type strike struct {
	hit   bool              // something was there to be hit
	lasts time.Duration     // until undo
	undo  func()            // nil if it does not last
	late  func() (hit bool) // asked before undo, if it can be known only then
}

// at is a strike that hit or did not, and is over.
func at(hit bool) strike { return strike{hit: hit} }

// lasting is a strike that hit, and lasts.
func lasting(lasts time.Duration, undo func()) strike {
	return strike{hit: true, lasts: lasts, undo: undo}
}

// An affliction is a fault that lasts.
type affliction struct {
	fault string
	until time.Time
	strike
}

// A tally is how often a fault was drawn, and how often it hit.
type tally struct {
	kind       kind
	drawn, hit int
}

// torment does one thing after the other, until the time is over. What lasts goes on meanwhile. Calms do not count, and on a machine so busy
// that little has come through by then it goes on for a while, and leaves the brokers alone, which take longest to start.
func (r *run) torment() {
	afflictions := make(map[string]affliction)
	defer func() {
		for about := range afflictions {
			r.relieve(afflictions, about)
		}
	}()
	faults := r.faultsToDo()
	var deck []fault
	end := r.began.Add(r.Duration)
	extended := end.Add(max(r.Duration, 5*time.Minute))
	for time.Now().Before(extended) && (time.Now().Before(end.Add(r.watch.calm)) || !r.enough()) {
		if len(deck) == 0 {
			deck = r.shuffle(faults)
		}
		f := deck[0]
		deck = deck[1:]
		if f.kind != kindBrokers || time.Now().Before(end) {
			r.strike(f, afflictions)
		}
		for next := time.Now().Add(r.between(100*time.Millisecond, 2500*time.Millisecond)); time.Now().Before(next); time.Sleep(10 * time.Millisecond) {
			for about, a := range afflictions {
				if time.Now().After(a.until) {
					r.relieve(afflictions, about)
				}
			}
			r.breathe(afflictions)
		}
	}
	r.look()
	r.lasted = time.Since(r.began).Round(time.Second)
}

// enough tells whether as much was done, and has come through, as a run of this length must show.
func (r *run) enough() bool {
	strikes := 0
	for _, f := range r.faults {
		strikes += f.hit
	}
	return strikes >= leastOf(leastStrikes, r.Duration) && r.watch.enough(r.Duration)
}

// shuffle returns each fault as often as its weight says: whatever the seed, a run that is long enough sees every one.
func (r *run) shuffle(faults []fault) (deck []fault) {
	for _, f := range faults {
		deck = append(deck, slices.Repeat([]fault{f}, f.weight)...)
	}
	r.random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

// strike does a fault, unless what it is about is afflicted already.
func (r *run) strike(f fault, afflictions map[string]affliction) {
	count := r.faults[f.name]
	if count == nil {
		count = &tally{kind: f.kind}
		r.faults[f.name] = count
	}
	count.drawn++
	about := f.about(r)
	if _, afflicted := afflictions[about]; about == "" || afflicted || r.shielded(f, afflictions) {
		return
	}
	r.say("%s: %s", about, f.name)
	s := f.do(r, about)
	if s.hit {
		count.hit++
	}
	if s.undo != nil {
		r.say("%s: %s lasts %v", about, f.name, s.lasts)
		afflictions[about] = affliction{f.name, time.Now().Add(s.lasts), s}
	}
}

// relieve ends an affliction.
func (r *run) relieve(afflictions map[string]affliction, about string) {
	a := afflictions[about]
	delete(afflictions, about)
	r.say("%s: %s is over", about, a.fault)
	late := a.late != nil && a.late()
	a.undo()
	if late {
		r.faults[a.fault].hit++
	}
}

// shielded says that a fault cannot be done now: those that ask the server for something need one that answers.
func (r *run) shielded(f fault, afflictions map[string]affliction) bool {
	_, down := afflictions[aboutServer]
	return down && f.kind == kindSQL
}

func (r *run) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.random.Int64N(int64(most-least)))
}

const aboutServer = "postgres"

// faultsToDo returns those that can be done here.
func (r *run) faultsToDo() []fault {
	faults := slices.Concat(processFaults(), sqlFaults())
	if r.server != nil {
		faults = slices.Concat(faults, serverFaults(), proxyFaults())
	}
	if r.kafka != nil {
		faults = slices.Concat(faults, kafkaFaults())
	}
	return faults
}

func processFaults() []fault {
	anyone := func(r *run) string { return r.processes[r.random.IntN(len(r.processes))].Name }
	return []fault{
		{"kill a process", kindProcesses, 8, anyone, func(r *run, about string) strike {
			return at(r.process(about).kill(r.between(0, 3*time.Second)))
		}},
		{"pause a process", kindProcesses, 6, anyone, func(r *run, about string) strike {
			if !r.process(about).pause() {
				return at(false)
			}
			lasts := r.between(50*time.Millisecond, 3*lease)
			if r.random.IntN(8) == 0 {
				lasts = 7 * lease // longer than a transaction of Kafka's, too
			}
			return lasting(lasts, r.process(about).resume)
		}},
		{"kill all processes of a role", kindProcesses, 1, anyone, func(r *run, about string) strike {
			hit := false
			for _, p := range r.processes {
				if p.Role == r.process(about).Role {
					hit = p.kill(r.between(0, 3*time.Second)) || hit
				}
			}
			return at(hit)
		}},
	}
}

func (r *run) process(name string) *process {
	for _, p := range r.processes {
		if p.Name == name {
			return p
		}
	}
	panic("chaos: no process " + name)
}

func serverFaults() []fault {
	server := func(*run) string { return aboutServer }
	back := func(r *run) func() { return func() { r.server.Start(r.t) } }
	return []fault{
		{"stop postgres at once", kindServer, 3, server, func(r *run, _ string) strike {
			r.server.Stop(r.t, testserver.Immediate)
			return lasting(r.between(0, 2*time.Second), back(r))
		}},
		{"stop postgres in order", kindServer, 1, server, func(r *run, _ string) strike {
			r.server.Stop(r.t, testserver.Fast)
			return lasting(r.between(0, 2*time.Second), back(r))
		}},
		{"kill postgres", kindServer, 2, server, func(r *run, _ string) strike {
			r.server.Kill(r.t)
			return lasting(r.between(0, 2*time.Second), back(r))
		}},
		{"pause postgres", kindServer, 1, server, func(r *run, _ string) strike {
			r.server.Pause(r.t)
			return lasting(r.between(100*time.Millisecond, 2*lease), func() { r.server.Resume(r.t) })
		}},
	}
}

func proxyFaults() []fault {
	networks := []string{"writers' network", "readers' network"}
	anyone := func(r *run) string { return networks[r.random.IntN(2)] }
	proxy := func(r *run, about string) *testserver.Proxy { return r.proxies[slices.Index(networks, about)] }
	healed := func(r *run, about string) func() { return func() { proxy(r, about).Heal(r.t) } }
	// A trap that nobody steps into has done nothing.
	trap := func(r *run, about string, sprung <-chan struct{}) strike {
		return strike{lasts: time.Second, undo: healed(r, about), late: func() bool { return isClosed(sprung) }}
	}
	return []fault{
		{"cut all connections", kindNetwork, 3, anyone, func(r *run, about string) strike {
			return at(proxy(r, about).Cut() > 0)
		}},
		{"cut and refuse connections", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Refuse()
			proxy(r, about).Cut()
			return lasting(r.between(100*time.Millisecond, lease), healed(r, about))
		}},
		{"let nothing through", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Stall()
			return lasting(r.between(100*time.Millisecond, 3*lease), healed(r, about))
		}},
		{"let nothing through, then cut", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Stall()
			return lasting(r.between(100*time.Millisecond, 3*lease), func() { proxy(r, about).Cut(); proxy(r, about).Heal(r.t) })
		}},
		{"delay answers", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Delay(r.between(time.Millisecond, 100*time.Millisecond))
			return lasting(r.between(500*time.Millisecond, 3*time.Second), healed(r, about))
		}},
		{"lose an answer", kindNetwork, 4, anyone, func(r *run, about string) strike {
			return trap(r, about, proxy(r, about).LoseAnswer("a0")) // the id of an account
		}},
		{"lose a request", kindNetwork, 2, anyone, func(r *run, about string) strike {
			return trap(r, about, proxy(r, about).LoseRequest("a0"))
		}},
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// heal undoes what may be left of anything.
func (r *run) heal() {
	r.starting.Wait()
	for _, p := range r.processes {
		p.resume()
	}
	for _, p := range slices.Concat(r.proxies, r.kafkaProxies) {
		p.Heal(r.t)
	}
	if r.kafka != nil {
		r.kafka.Recover(r.t)
	}
	r.say("all is healed")
}
