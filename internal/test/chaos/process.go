package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A process is this binary again, in a role. It is started again whenever it ends, as an orchestrator would, until it is told to end.
type process struct {
	assignment
	gone chan struct{} // closed when it has ended for good

	mu      sync.Mutex
	command *exec.Cmd // the incarnation that runs, or nil
	paused  bool
	killed  bool          // this incarnation was
	rest    time.Duration // before the next incarnation
	ending  bool
	ended   error // of the last incarnation, if it ended in another way than it should
	starts  int
	kills   int
	deaths  int // by its own hand
}

// start starts a process.
func start(a assignment) *process {
	p := &process{assignment: a, gone: make(chan struct{})}
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

// launch starts the next incarnation, unless the process is to end.
func (p *process) launch() (*exec.Cmd, io.Closer, error) {
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
	executable, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	stderr, err := os.Create(filepath.Join(p.Folder, p.id()+".stderr"))
	if err != nil {
		return nil, nil, err
	}
	defer stderr.Close()
	cmd := exec.Command(executable)
	// Under the race detector a process rests for a second before it ends, unless it is told not to.
	cmd.Env = append(os.Environ(), assignmentVariable+"="+string(assigned), "GORACE=atexit_sleep_ms=0 halt_on_error=1 "+os.Getenv("GORACE"))
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
	return cmd, stdin, nil
}

// kill ends the incarnation that runs with SIGKILL, and lets the next one begin after a while. It tells whether one ran.
func (p *process) kill(rest time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.command == nil || p.ending {
		return false
	}
	if p.killed || p.command.Process.Kill() != nil {
		return false // it is on its way, or has ended by itself
	}
	p.killed, p.rest = true, rest
	p.kills++
	return true
}

// pause stops the process where it stands until resume.
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
		_ = resume(p.command.Process) // it may have been killed in its sleep
		p.paused = false
	}
}

// end asks the process to end in order, and returns when it has. One that does not is made to say where its goroutines are, which makes an error.
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
			_ = p.command.Process.Signal(syscall.SIGQUIT) // the goroutines are in its standard error then
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

// discard ends the process at once, for a run that is given up.
func (p *process) discard() {
	p.mu.Lock()
	p.ending = true
	if p.command != nil {
		_ = p.command.Process.Kill()
	}
	p.mu.Unlock()
	<-p.gone
}
