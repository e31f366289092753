package chaos

import (
	"slices"
	"time"

	"github.com/thalo-go/es/internal/testserver"
)

// A fault is one thing that the nemesis does. While it lasts nothing else is done to what it is about.
type fault struct {
	name   string
	weight int
	about  func(r *run) string // what it is about, "" if there is nothing to do it to
	do     func(r *run, about string) (undo func(), lasts time.Duration)
}

// An affliction is a fault that lasts.
type affliction struct {
	fault string
	until time.Time
	undo  func()
}

// torment does one thing after the other, until the time is over. What lasts goes on meanwhile.
func (r *run) torment() {
	afflictions := make(map[string]affliction)
	defer func() {
		for about, a := range afflictions {
			r.say("%s: %s is over", about, a.fault)
			a.undo()
		}
	}()
	faults := r.faultsToDo()
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	for end := r.began.Add(r.Duration); time.Now().Before(end); {
		f := pick(faults, r.random.IntN(total))
		about := f.about(r)
		if _, afflicted := afflictions[about]; about != "" && !afflicted && !r.shielded(f, afflictions) {
			r.faults[f.name]++
			r.say("%s: %s", about, f.name)
			if undo, lasts := f.do(r, about); undo != nil {
				r.say("%s: %s lasts %v", about, f.name, lasts)
				afflictions[about] = affliction{f.name, time.Now().Add(lasts), undo}
			}
		}
		for next := time.Now().Add(r.between(100*time.Millisecond, 2500*time.Millisecond)); time.Now().Before(next); time.Sleep(10 * time.Millisecond) {
			for about, a := range afflictions {
				if time.Now().After(a.until) {
					r.say("%s: %s is over", about, a.fault)
					a.undo()
					delete(afflictions, about)
				}
			}
		}
	}
}

func pick(faults []fault, n int) fault {
	for _, f := range faults {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	return faults[0]
}

// shielded says that a fault cannot be done now: those that ask the server for something need one that answers.
func (r *run) shielded(f fault, afflictions map[string]affliction) bool {
	_, down := afflictions[aboutServer]
	return down && f.name[0] == 'S' // SQL
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
		{"kill a process", 8, anyone, func(r *run, about string) (func(), time.Duration) {
			r.process(about).kill(r.between(0, 3*time.Second))
			return nil, 0
		}},
		{"pause a process", 6, anyone, func(r *run, about string) (func(), time.Duration) {
			if !r.process(about).pause() {
				return nil, 0
			}
			lasts := r.between(50*time.Millisecond, 3*lease)
			if r.random.IntN(8) == 0 {
				lasts = 7 * lease // longer than a transaction of Kafka's, too
			}
			return r.process(about).resume, lasts
		}},
		{"kill all processes of a role", 1, anyone, func(r *run, about string) (func(), time.Duration) {
			for _, p := range r.processes {
				if p.Role == r.process(about).Role {
					p.kill(r.between(0, 3*time.Second))
				}
			}
			return nil, 0
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
		{"stop postgres at once", 3, server, func(r *run, _ string) (func(), time.Duration) {
			r.server.Stop(r.t, testserver.Immediate)
			return back(r), r.between(0, 2*time.Second)
		}},
		{"stop postgres in order", 1, server, func(r *run, _ string) (func(), time.Duration) {
			r.server.Stop(r.t, testserver.Fast)
			return back(r), r.between(0, 2*time.Second)
		}},
		{"kill postgres", 2, server, func(r *run, _ string) (func(), time.Duration) {
			r.server.Kill(r.t)
			return back(r), r.between(0, 2*time.Second)
		}},
		{"pause postgres", 1, server, func(r *run, _ string) (func(), time.Duration) {
			r.server.Pause(r.t)
			return func() { r.server.Resume(r.t) }, r.between(100*time.Millisecond, 2*lease)
		}},
	}
}

func proxyFaults() []fault {
	anyone := func(r *run) string { return []string{"writers' network", "readers' network"}[r.random.IntN(2)] }
	proxy := func(r *run, about string) *testserver.Proxy {
		if about == "writers' network" {
			return r.proxies[0]
		}
		return r.proxies[1]
	}
	healed := func(r *run, about string) func() { return func() { proxy(r, about).Heal(r.t) } }
	return []fault{
		{"cut all connections", 3, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).Cut()
			return nil, 0
		}},
		{"cut and refuse connections", 2, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).Refuse()
			proxy(r, about).Cut()
			return healed(r, about), r.between(100*time.Millisecond, lease)
		}},
		{"let nothing through", 2, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).Stall()
			return healed(r, about), r.between(100*time.Millisecond, 3*lease)
		}},
		{"let nothing through, then cut", 2, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).Stall()
			return func() { proxy(r, about).Cut(); proxy(r, about).Heal(r.t) }, r.between(100*time.Millisecond, 3*lease)
		}},
		{"delay answers", 2, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).Delay(r.between(time.Millisecond, 100*time.Millisecond))
			return healed(r, about), r.between(500*time.Millisecond, 3*time.Second)
		}},
		{"lose an answer", 4, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).LoseAnswer("a0") // the id of an account
			return healed(r, about), time.Second
		}},
		{"lose a request", 2, anyone, func(r *run, about string) (func(), time.Duration) {
			proxy(r, about).LoseRequest("a0")
			return healed(r, about), time.Second
		}},
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
