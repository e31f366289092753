//go:build unix

package kafka_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// A process relays in a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd

	mu       sync.Mutex
	working  bool
	position es.Position
	failed   string
}

func relayProcess(t *testing.T, b testserver.Broker, file string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), "KAFKA_TEST_CHILD="+file, "KAFKA_TEST_PREFIX="+b.Prefix, "KAFKA_TEST_BOOTSTRAP="+b.Bootstrap)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var heard sync.WaitGroup
	heard.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			var working bool
			var position es.Position
			if _, err := fmt.Sscan(lines.Text(), &working, &position); err != nil {
				p.failed = lines.Text()
			} else {
				p.working, p.position = working, max(p.position, position)
			}
			p.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		heard.Wait()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // it may have ended
}

// pause stops the process where it stands, but not while it holds the lock of the file: nobody else could go on then.
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

func (p *process) at() (working bool, position es.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != "" {
		p.t.Fatalf("the process says %s", p.failed)
	}
	return p.working, p.position
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

func TestARelayThatWakesUpIsShutOut(t *testing.T) {
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
