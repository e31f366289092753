package testserver

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

//go:embed guard.sh
var guard []byte

// A signal is named as kill(1) names it, for the guard and so that this file compiles where there are none.
type signal string

const (
	terminate signal = "TERM"
	interrupt signal = "INT"
	quit      signal = "QUIT"
	killed    signal = "KILL"
	pause     signal = "STOP"
	resume    signal = "CONT"
)

// A command says how a server is started.
type command struct {
	path   string
	args   []string
	env    []string
	folder string // the server's own, removed if the test process dies
	log    string // the file its output is added to
	end    signal // what ends it when the test process died
}

// A process is a server under its guard. It needs no goroutine, so that tests which look for leaked ones find none of ours.
type process struct {
	pid int

	mu      sync.Mutex
	guard   *exec.Cmd
	control *os.File // closed by our death: the guard then ends the server
	status  *os.File
	ended   bool
	code    string // the exit code as the shell has it: 137 after SIGKILL
}

// launch starts a server under a guard, see guard.sh, as the user that servers run as.
func launch(c command) (*process, error) {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	held, control, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	status, told, err := os.Pipe()
	if err != nil {
		control.Close()
		return nil, err
	}
	defer told.Close()

	script := filepath.Join(c.folder, "guard")
	shell := exec.Command("sh", append([]string{script, c.folder, string(c.end), c.path}, c.args...)...)
	shell.Dir, shell.Env = c.folder, c.env
	shell.Stdin, shell.Stdout, shell.Stderr = held, log, log
	shell.ExtraFiles = []*os.File{told}
	p := &process{guard: shell, control: control, status: status}
	err = errors.Join(os.WriteFile(script, guard, 0o600), give(script), give(c.log), demote(shell))
	if err == nil {
		err = shell.Start()
	}
	if err == nil {
		told.Close()
		var line string
		if line, err = p.read(10 * time.Second); err == nil {
			p.pid, err = strconv.Atoi(line)
		}
	}
	if err != nil {
		control.Close()
		status.Close()
		return nil, fmt.Errorf("start %s: %w", filepath.Base(c.path), err)
	}
	return p, nil
}

// read returns the guard's next line, and not a byte more: the pid and the exit code of a short life come at once.
func (p *process) read(limit time.Duration) (string, error) {
	if err := p.status.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	var line []byte
	for next := make([]byte, 1); ; line = append(line, next[0]) {
		if _, err := p.status.Read(next); err != nil || next[0] == '\n' {
			return string(line), err
		}
	}
}

// running says whether the server has not ended, and waits up to limit for its end.
func (p *process) running(limit time.Duration) bool {
	const turn = 10 * time.Millisecond
	for end := time.Now().Add(limit); ; {
		if p.hasEnded(turn) {
			return false
		}
		if time.Now().After(end) {
			return true
		}
	}
}

func (p *process) hasEnded(limit time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return true
	}
	code, err := p.read(limit)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	p.ended, p.code = true, code
	// If the guard itself was killed there is nobody to tell.
	_, _ = p.control.WriteString("seen\n")
	p.control.Close()
	p.status.Close()
	_ = p.guard.Wait()
	return true
}

// send signals the server, unless it has ended: its pid may be another's by then.
func (p *process) send(s signal) error {
	if p.hasEnded(time.Millisecond) {
		return fmt.Errorf("process %d has ended with code %s", p.pid, p.code)
	}
	return sendSignal(p.pid, s)
}

// sendAll signals the server and its children. PostgreSQL makes each of its processes the leader of a group, so that no
// signal to a group reaches them all.
func (p *process) sendAll(s signal) error {
	// A stopped parent starts no more children while they are listed.
	if err := p.send(pause); err != nil {
		return err
	}
	children, err := childrenOf(p.pid)
	if err != nil {
		return err
	}
	for _, child := range children {
		// One that has ended meanwhile needs no signal.
		_ = sendSignal(child, s)
	}
	if err := p.send(s); err != nil || s != killed {
		return err
	}
	if p.running(stopLimit) {
		return fmt.Errorf("process %d is there %v after SIGKILL", p.pid, stopLimit)
	}
	for end := time.Now().Add(stopLimit); ; time.Sleep(time.Millisecond) {
		children = alive(children)
		if len(children) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v are there %v after SIGKILL", children, stopLimit)
		}
	}
}

// end asks the server to end and sees that it does.
func (p *process) end(s signal) error {
	if err := p.send(s); err != nil {
		return err
	}
	if !p.running(stopLimit) {
		return nil
	}
	return fmt.Errorf("process %d is there %v after SIG%s", p.pid, stopLimit, s)
}

// stopLimit is how long a server may take to stop before that is called a fault.
const stopLimit = time.Minute

// scratch makes a folder for one server, which the user that servers run as owns.
func scratch() (string, error) {
	base := os.TempDir()
	if err := reachable(base); err != nil {
		base = "/tmp"
	}
	folder, err := os.MkdirTemp(base, "thalo-es-test-")
	if err != nil {
		return "", err
	}
	return folder, give(folder)
}

// environment is what servers and tools get of ours: PGHOST and the like would send them elsewhere.
func environment(libraries string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/"}
	if libraries != "" {
		env = append(env, "LD_LIBRARY_PATH="+libraries)
	}
	return env
}
