package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/thalo-go/es/internal/test/child"
)

// A process is this binary, started again in a role. It is restarted whenever it ends, as an orchestrator would, until
// the run ends it. With a binary of another release, each incarnation is of either.
type process struct {
	assignment
	beside  string        // the binary of another release, or empty
	preload string        // a library that it loads first, or empty
	power   *sync.RWMutex // a process starts only while this is not locked
	gone    chan struct{} // closed when it has ended and will not be restarted

	mu      sync.Mutex
	command *exec.Cmd // the running incarnation, or nil
	paused  bool
	killed  bool          // this incarnation was killed
	rest    time.Duration // delay before the next incarnation
	ending  bool
	ended   error // error of the last incarnation, if it did not end as expected
	starts  int
	others  int // starts of the other release
	kills   int
	deaths  int // ended by themselves
}

// start starts a process.
func start(a assignment, beside, preload string, power *sync.RWMutex) *process {
	p := &process{assignment: a, beside: beside, preload: preload, power: power, gone: make(chan struct{})}
	go p.supervise()
	return p
}

func (p *process) supervise() {
	defer close(p.gone)
	for {
		cmd, stdin, err := p.launch()
		if err != nil {
			p.mu.Lock()
			p.ended, p.command = err, nil
			p.mu.Unlock()
			return
		}
		if cmd == nil {
			return
		}
		err = cmd.Wait()
		_ = stdin.Close()
		p.mu.Lock()
		p.command, p.paused = nil, false
		if (p.ending || p.Role == RoleSettler) && !p.killed {
			p.ended = err
		}
		if !p.ending && !p.killed && p.Role != RoleSettler {
			p.deaths++
			p.rest = 500 * time.Millisecond
		}
		rest := p.rest
		p.rest = 0
		done := p.ending || p.Role == RoleSettler
		p.mu.Unlock()
		if done {
			return
		}
		time.Sleep(rest)
	}
}

// launch starts the next incarnation, unless the process is ending.
func (p *process) launch() (*exec.Cmd, io.Closer, error) {
	p.power.RLock()
	defer p.power.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return nil, nil, nil
	}
	p.Incarnation++
	p.killed = false
	assigned, err := json.Marshal(p.assignment)
	if err != nil {
		return nil, nil, err
	}
	stderr, err := os.Create(filepath.Join(p.Folder, p.id()+".stderr"))
	if err != nil {
		return nil, nil, err
	}
	defer stderr.Close()
	environment := []string{assignmentVariable + "=" + string(assigned)}
	if p.preload != "" {
		environment = append(environment, "LD_PRELOAD="+p.preload)
	}
	cmd, err := child.Command(context.Background(), environment)
	if err != nil {
		return nil, nil, err
	}
	other := p.otherRelease()
	if other {
		cmd = child.CommandOf(context.Background(), p.beside, environment)
	}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("chaos: start %s: %w", p.id(), err)
	}
	p.command = cmd
	p.starts++
	if other {
		p.others++
	}
	return cmd, stdin, nil
}

// otherRelease reports whether this incarnation is of the other release: they alternate, and so do the processes of a role. A first settler
// creates the schema with the other release. The last one is of this release, which knows everything that is stored.
func (p *process) otherRelease() bool {
	switch {
	case p.beside == "":
		return false
	case p.Role == RoleSettler:
		return p.Name == firstSettler
	}
	return (int(p.Name[len(p.Name)-1])+p.Incarnation)%2 == 0
}

// kill ends the running incarnation with SIGKILL, and delays the next one. It reports whether one was running.
func (p *process) kill(rest time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command == nil || p.ending {
		return false
	}
	if p.killed || p.command.Process.Kill() != nil {
		return false // it was killed before, or has ended by itself
	}
	p.killed, p.rest = true, rest
	p.kills++
	return true
}

// isGone reports whether no incarnation is running.
func (p *process) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.command == nil
}

// pause stops the process until resume.
func (p *process) pause() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command == nil || p.ending || p.paused {
		return false
	}
	p.paused = halt(p.command.Process) == nil
	return p.paused
}

func (p *process) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command != nil && p.paused {
		_ = resume(p.command.Process) // it may have been killed while paused
		p.paused = false
	}
}

// end asks the process to shut down and waits for it. One that does not end within the limit is made to print its
// goroutines, and end returns an error.
func (p *process) end(patience time.Duration) error {
	p.resume()
	p.mu.Lock()
	p.ending = true
	if p.command != nil {
		_ = p.command.Process.Signal(syscall.SIGTERM)
	}
	p.mu.Unlock()
	hung := false
	select {
	case <-p.gone:
	case <-time.After(patience):
		hung = true
		p.mu.Lock()
		if p.command != nil {
			_ = p.command.Process.Signal(syscall.SIGQUIT) // prints the goroutines to standard error
		}
		p.mu.Unlock()
	}
	<-p.gone
	p.mu.Lock()
	defer p.mu.Unlock()
	if hung {
		return fmt.Errorf("%s did not end within %v of SIGTERM: %s has its goroutines", p.id(), patience, p.id()+".stderr")
	}
	if p.ended != nil {
		return fmt.Errorf("%s ended with %w: see %s", p.id(), p.ended, p.id()+".stderr")
	}
	return nil
}

// discard kills the process, for a run that is abandoned.
func (p *process) discard() {
	p.mu.Lock()
	p.ending = true
	if p.command != nil {
		_ = p.command.Process.Kill()
	}
	p.mu.Unlock()
	<-p.gone
}
