//go:build unix

package kafka_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
)

// process is a relay in another process.
type process struct {
	*child.Process
	t *testing.T
}

func relayProcess(t *testing.T, b testserver.Broker, file string) *process {
	t.Helper()
	return &process{child.Start(t, "relay", file, b.Prefix, b.Bootstrap), t}
}

func (p *process) signal(s syscall.Signal) {
	_ = p.Signal(s) // it may have ended
}

// pause stops the process, but not while it holds the lock of the file, which would block all others.
func (p *process) pause(log es.Log) {
	p.t.Helper()
	eventually(p.t, "it can be paused without the lock of the file", func() bool {
		p.signal(syscall.SIGSTOP)
		ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Second)
		defer cancel()
		_, err := log.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "pause"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "paused"}}})
		if err != nil {
			p.signal(syscall.SIGCONT)
		}
		return err == nil
	})
}

// at returns whether the relay worked when it was last seen, and the highest position so far.
func (p *process) at() (working bool, position es.Position) {
	p.t.Helper()
	for _, line := range p.Lines() {
		var now es.Position
		if _, err := fmt.Sscan(line, &working, &now); err != nil {
			p.t.Fatalf("the process printed %q: %v", line, err)
		}
		position = max(position, now)
	}
	return working, position
}

func TestARelayThatIsKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log, file := openFile(t)
		var last es.Position
		for range 4 {
			fill(t, log, 200)
			p := relayProcess(t, b, file)
			_, before := p.at()
			eventually(t, "it publishes", func() bool { _, now := p.at(); return now > before && now > last })
			_, last = p.at()
			p.signal(syscall.SIGKILL)
		}
		p := relayProcess(t, b, file)
		end := fill(t, log, 1)
		eventually(t, "all is published", func() bool { _, now := p.at(); return now >= end })
		p.signal(syscall.SIGKILL)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

func TestARelayThatWakesUpIsFenced(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log, file := openFile(t)
		stop := load(t, log)
		defer stop()
		zombie, other := relayProcess(t, b, file), relayProcess(t, b, file)
		for range 2 {
			eventually(t, "one of them works", func() bool {
				one, _ := zombie.at()
				two, _ := other.at()
				return one || two
			})
			if working, _ := zombie.at(); !working {
				zombie, other = other, zombie
			}
			zombie.pause(log)
			_, before := other.at()
			eventually(t, "the other takes over", func() bool { working, now := other.at(); return working && now > before })
			zombie.signal(syscall.SIGCONT)
			_, before = other.at()
			eventually(t, "the log is published further", func() bool {
				_, one := zombie.at()
				_, two := other.at()
				return max(one, two) > before+200
			})
		}
		stop()
		end := fill(t, log, 1)
		eventually(t, "all is published", func() bool {
			_, one := zombie.at()
			_, two := other.at()
			return max(one, two) >= end
		})
		zombie.signal(syscall.SIGKILL)
		other.signal(syscall.SIGKILL)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}
