package chaos

import (
	"slices"
	"time"

	"github.com/thalo-go/es/internal/test/testserver"
)

// A fault is one action of the nemesis. While it lasts, its target gets no other fault.
type fault struct {
	name   string
	kind   kind
	weight int                 // number of cards in the deck
	about  func(r *run) string // the target, "" if there is none
	do     func(r *run, about string) strike
}

// A kind is the kind of target, for the summary.
type kind string

const (
	kindProcesses kind = "processes"
	kindSQL       kind = "inside postgres"
	kindServer    kind = "postgres"
	kindNetwork   kind = "network of postgres"
	kindBrokers   kind = "brokers"
	kindBroking   kind = "network of kafka"
)

// A strike is the outcome of a fault.
type strike struct {
	hit   bool              // the fault had an effect
	lasts time.Duration     // duration until undo
	undo  func()            // nil if the fault is over
	late  func() (hit bool) // called before undo, if the effect is only known then
}

// at returns the outcome of a fault that is over.
func at(hit bool) strike { return strike{hit: hit} }

// lasting returns the outcome of a fault that had an effect and lasts.
func lasting(lasts time.Duration, undo func()) strike {
	return strike{hit: true, lasts: lasts, undo: undo}
}

// An activeFault is a fault that lasts.
type activeFault struct {
	fault string
	until time.Time
	strike
}

// A tally counts how often a fault was drawn and how often it had an effect.
type tally struct {
	kind       kind
	drawn, hit int
}

// injectFaults injects one fault after the other until the time is over. Faults that last overlap. Calms are added to
// the time. If too little has happened by then, because the machine is busy, it continues for a while and leaves out
// brokers, which take longest to start.
func (r *run) injectFaults() {
	active := make(map[string]activeFault)
	defer func() {
		for about := range active {
			r.endFault(active, about)
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
			r.strike(f, active)
		}
		for next := time.Now().Add(r.between(100*time.Millisecond, 2500*time.Millisecond)); time.Now().Before(next); time.Sleep(10 * time.Millisecond) {
			for about, a := range active {
				if time.Now().After(a.until) {
					r.endFault(active, about)
				}
			}
			r.calmIfStuck(active)
		}
	}
	r.look()
	r.lasted = time.Since(r.began).Round(time.Second)
}

// enough reports whether as many faults and records were seen as a run of this length requires.
func (r *run) enough() bool {
	strikes := 0
	for _, f := range r.faults {
		strikes += f.hit
	}
	return strikes >= leastOf(leastStrikes, r.Duration) && r.watch.enough(r.Duration)
}

// shuffle returns each fault as often as its weight, in random order. So a run that is long enough sees every fault,
// whatever the seed.
func (r *run) shuffle(faults []fault) (deck []fault) {
	for _, f := range faults {
		deck = append(deck, slices.Repeat([]fault{f}, f.weight)...)
	}
	r.random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

// strike injects a fault unless its target has one.
func (r *run) strike(f fault, active map[string]activeFault) {
	count := r.faults[f.name]
	if count == nil {
		count = &tally{kind: f.kind}
		r.faults[f.name] = count
	}
	count.drawn++
	about := f.about(r)
	if _, taken := active[about]; about == "" || taken || r.blocked(f, active) {
		return
	}
	r.say("%s: %s", about, f.name)
	s := f.do(r, about)
	if s.hit {
		count.hit++
	}
	if s.undo != nil {
		r.say("%s: %s lasts %v", about, f.name, s.lasts)
		active[about] = activeFault{f.name, time.Now().Add(s.lasts), s}
	}
}

// endFault undoes an active fault.
func (r *run) endFault(active map[string]activeFault, about string) {
	a := active[about]
	delete(active, about)
	r.say("%s: %s has ended", about, a.fault)
	late := a.late != nil && a.late()
	a.undo()
	if late {
		r.faults[a.fault].hit++
	}
}

// blocked reports whether a fault cannot be injected now: SQL needs a server that answers.
func (r *run) blocked(f fault, active map[string]activeFault) bool {
	_, down := active[aboutServer]
	return down && f.kind == kindSQL
}

func (r *run) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.random.Int64N(int64(most-least)))
}

const aboutServer = "postgres"

// faultsToDo returns the faults that are possible with the servers of this run.
func (r *run) faultsToDo() []fault {
	faults := slices.Concat(processFaults(), sqlFaults())
	if r.server != nil {
		faults = slices.Concat(faults, serverFaults(), proxyFaults())
	}
	if r.prefix != "" {
		faults = slices.Concat(faults, leaseFaults())
	}
	faults = slices.Concat(faults, r.powerFaults())
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
				lasts = 7 * lease // longer than a Kafka transaction
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
		{"shut postgres down", kindServer, 1, server, func(r *run, _ string) strike {
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

// powerFaults returns the power cuts: of the server, and of the read models in SQLite. What was not synced is lost.
func (r *run) powerFaults() (faults []fault) {
	if r.disk != nil {
		faults = append(faults, fault{"cut the power of postgres", kindServer, 4, func(*run) string { return aboutServer }, func(r *run, _ string) strike {
			r.server.Kill(r.t)
			r.must("cut the power", r.disk.Cut())
			return lasting(r.between(0, 2*time.Second), func() { r.server.Start(r.t) })
		}})
	}
	if r.modelDisk != nil {
		faults = append(faults, fault{"cut the power of sqlite", kindProcesses, 4, func(*run) string { return "read models in sqlite" }, func(r *run, _ string) strike {
			return at(r.cutModels())
		}})
	}
	return faults
}

// cutModels kills the processes with read models in SQLite, and cuts their power before they start again.
func (r *run) cutModels() (hit bool) {
	r.power.Lock()
	defer r.power.Unlock()
	for _, p := range r.processes {
		if p.Role == RoleFed {
			hit = p.kill(r.between(0, time.Second)) || hit
		}
	}
	for _, p := range r.processes {
		for p.Role == RoleFed && !p.isGone() {
			time.Sleep(time.Millisecond)
		}
	}
	r.must("cut the power of the read models", r.modelDisk.Cut())
	return hit
}

func proxyFaults() []fault {
	networks := []string{"writers' network", "readers' network"}
	anyone := func(r *run) string { return networks[r.random.IntN(2)] }
	proxy := func(r *run, about string) *testserver.Proxy { return r.proxies[slices.Index(networks, about)] }
	healed := func(r *run, about string) func() { return func() { proxy(r, about).Heal(r.t) } }
	// A trap that no request triggers had no effect.
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
		{"stall connections", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Stall()
			return lasting(r.between(100*time.Millisecond, 3*lease), healed(r, about))
		}},
		{"stall, then cut connections", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Stall()
			return lasting(r.between(100*time.Millisecond, 3*lease), func() { proxy(r, about).Cut(); proxy(r, about).Heal(r.t) })
		}},
		{"delay answers", kindNetwork, 2, anyone, func(r *run, about string) strike {
			proxy(r, about).Delay(r.between(time.Millisecond, 100*time.Millisecond))
			return lasting(r.between(500*time.Millisecond, 3*time.Second), healed(r, about))
		}},
		{"lose an answer", kindNetwork, 4, anyone, func(r *run, about string) strike {
			return trap(r, about, proxy(r, about).LoseAnswer("a0")) // part of an account's id
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

// heal undoes whatever faults may be left.
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
	r.say("all faults are undone")
}
