package chaos

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/thalo-go/es/internal/test/testserver"
)

// kafkaFaults returns the faults of a cluster started by this run. One node at a time is down: with three nodes the
// cluster survives, with one it is down.
func kafkaFaults() []fault {
	node := func(r *run) string {
		if r.startings.Load() > 0 {
			return "" // another node is down
		}
		return "a broker"
	}
	number := func(r *run) int { return 1 + r.random.IntN(r.kafka.Nodes()) }
	network := func(*run) string { return "network of kafka" }
	proxy := func(r *run) *testserver.Proxy { return r.kafkaProxies[r.random.IntN(len(r.kafkaProxies))] }
	return []fault{
		{"kill a broker", kindBrokers, 3, node, func(r *run, _ string) strike {
			n := number(r)
			r.kafka.Kill(r.t, n)
			return lasting(r.between(0, 3*time.Second), func() { r.startBroker(n) })
		}},
		{"shut a broker down", kindBrokers, 1, node, func(r *run, _ string) strike {
			r.stopBroker(number(r), r.between(0, 2*time.Second))
			return at(true)
		}},
		{"pause a broker", kindBrokers, 2, node, func(r *run, _ string) strike {
			n := number(r)
			r.kafka.Pause(r.t, n)
			return lasting(r.between(100*time.Millisecond, 4*time.Second), func() { r.kafka.Resume(r.t, n) })
		}},
		{"cut all connections to a broker", kindBroking, 3, network, func(r *run, _ string) strike {
			return at(proxy(r).Cut() > 0)
		}},
		{"cut and refuse connections to a broker", kindBroking, 2, network, func(r *run, _ string) strike {
			p := proxy(r)
			p.Refuse()
			p.Cut()
			return lasting(r.between(100*time.Millisecond, 4*time.Second), func() { p.Heal(r.t) })
		}},
		{"stall connections to a broker", kindBroking, 2, network, func(r *run, _ string) strike {
			p := proxy(r)
			p.Stall()
			return lasting(r.between(100*time.Millisecond, 4*time.Second), func() { p.Cut(); p.Heal(r.t) })
		}},
		{"delay a broker's answers", kindBroking, 1, network, func(r *run, _ string) strike {
			p := proxy(r)
			p.Delay(r.between(time.Millisecond, 100*time.Millisecond))
			return lasting(r.between(500*time.Millisecond, 3*time.Second), func() { p.Heal(r.t) })
		}},
	}
}

// startBroker restarts a node in the background, because it takes a while.
func (r *run) startBroker(node int) { r.background(func() { r.startAgain(node) }) }

// stopBroker shuts a node down and restarts it later, both in the background.
func (r *run) stopBroker(node int, rest time.Duration) {
	r.background(func() {
		r.kafka.Stop(r.t, node)
		time.Sleep(rest)
		r.startAgain(node)
	})
}

func (r *run) startAgain(node int) {
	r.kafka.Start(r.t, node)
	r.say("broker %d is back", node)
}

// background runs a function during which brokers get no faults.
func (r *run) background(do func()) {
	r.startings.Add(1)
	r.starting.Go(func() {
		defer r.startings.Add(-1)
		do()
	})
}

// keepKafkaLogs adds the brokers' logs to the evidence.
func (r *run) keepKafkaLogs(write func(name, text string)) {
	for n := range r.kafka.Nodes() {
		write("kafka-"+strconv.Itoa(n+1)+".log", r.kafka.Log(n+1))
	}
}

// newPrefix returns a prefix for the topics, unique on an existing cluster.
func newPrefix(seed uint64) string {
	return strings.ToLower(fmt.Sprintf("chaos-%d-%d", seed, time.Now().UnixMilli()))
}
