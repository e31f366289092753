package testserver

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type kafkaNode struct {
	id     int
	folder string
	ports  kafkaPorts

	mu      sync.Mutex
	process *process // nil while stopped
}

// kafkaPorts are the ports of a node: for clients, for clients of a proxy, of the proxy, for the other nodes, and for clients with TLS.
type kafkaPorts struct{ client, proxied, proxy, controller, secure int }

func (p *kafkaPorts) all() []*int {
	return []*int{&p.client, &p.proxied, &p.proxy, &p.controller, &p.secure}
}

func (n *kafkaNode) dir() string        { return filepath.Join(n.folder, "data") }
func (n *kafkaNode) properties() string { return filepath.Join(n.folder, "properties") }
func (n *kafkaNode) logFile() string    { return filepath.Join(n.folder, "log") }

// configuration returns a node's server.properties. Clients that connect to the listener PROXIED are always directed to
// the ports of Proxies.
func (k *Kafka) configuration(n *kafkaNode) (string, error) {
	var voters []string
	for _, voter := range k.nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", voter.id, voter.ports.controller))
	}
	replicas := strconv.Itoa(len(k.nodes))
	inSync := strconv.Itoa(len(k.nodes)/2 + 1)
	settings := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(n.id),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"listeners":                      fmt.Sprintf("CLIENT://127.0.0.1:%d,PROXIED://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", n.ports.client, n.ports.proxied, n.ports.controller),
		"advertised.listeners":           fmt.Sprintf("CLIENT://127.0.0.1:%d,PROXIED://127.0.0.1:%d", n.ports.client, n.ports.proxy),
		"listener.security.protocol.map": "CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "CLIENT",
		"log.dirs":                       n.dir(),
		"auto.create.topics.enable":      "false",
		"default.replication.factor":     replicas,
		"min.insync.replicas":            inSync,

		"offsets.topic.num.partitions":                     "1",
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.num.partitions":             "1",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
		"group.initial.rebalance.delay.ms":                 "0",

		"broker.heartbeat.interval.ms": "500",
		"broker.session.timeout.ms":    strconv.FormatInt(k.sessionTimeout().Milliseconds(), 10),
		// On a busy machine a node may need longer than a minute to register. It would end.
		"initial.broker.registration.timeout.ms": strconv.FormatInt(startLimit.Milliseconds(), 10),
		// A transaction that has timed out is aborted within 1 s instead of 10 s.
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
	}
	if k.secure {
		if err := n.secure(settings); err != nil {
			return "", err
		}
	}
	maps.Copy(settings, k.settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s=%s\n", name, settings[name])
	}
	return text.String(), nil
}

// sessionTimeout returns the time after which the controller fences a node that has sent no heartbeat. A cluster of several
// nodes detects a killed node after 3 s instead of 9 s. A single node has no other to take over, so on a busy machine
// fencing would only make every partition unavailable. But a node that was killed cannot register again before the session
// of its former process has ended, so the time must not be long.
func (k *Kafka) sessionTimeout() time.Duration {
	if len(k.nodes) == 1 {
		return 20 * time.Second
	}
	return 3 * time.Second
}

func (n *kafkaNode) current() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil && n.process.hasEnded(time.Millisecond) {
		n.process = nil
	}
	return n.process
}

func (n *kafkaNode) end(by signal) error {
	p := n.current()
	if p == nil {
		return errors.New("the node is not running")
	}
	if err := p.end(by); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process = nil
	return nil
}

func (n *kafkaNode) halt(by signal) error {
	p := n.current()
	if p == nil {
		return errors.New("the node is not running")
	}
	return p.send(by)
}
