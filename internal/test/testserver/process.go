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

// A signal has the name that kill(1) uses. The guard needs it, and this file then compiles on systems without signals.
type signal string

const (
	terminate signal = "TERM"
	interrupt signal = "INT"
	quit      signal = "QUIT"
	killed    signal = "KILL"
	pause     signal = "STOP"
	resume    signal = "CONT"
)

// A command describes how to start a server.
type command struct {
	path   string
	args   []string
	env    []string
	folder string // of the server; removed if the test process dies
	log    string // file to which output is appended
	end    signal // signal that ends the server after the test process died
}

// A process is a server started by a guard. It needs no goroutine, so tests that check for leaked goroutines find none.
type process struct {
	pid int

	mu      sync.Mutex
	guard   *exec.Cmd
	control *os.File // closed when this process dies; the guard then ends the server
	status  *os.File
	ended   bool
	code    string // exit code as reported by the shell: 137 after SIGKILL
}

// launch starts a server with a guard, see guard.sh, as the user that servers run as.
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
	status, statusWriter, err := os.Pipe()
	if err != nil {
		control.Close()
		return nil, err
	}
	defer statusWriter.Close()

	script := filepath.Join(c.folder, "guard")
	shell := exec.Command("sh", append([]string{script, c.folder, string(c.end), c.path}, c.args...)...)
	shell.Dir, shell.Env = c.folder, c.env
	shell.Stdin, shell.Stdout, shell.Stderr = held, log, log
	shell.ExtraFiles = []*os.File{statusWriter}
	p := &process{guard: shell, control: control, status: status}
	err = errors.Join(os.WriteFile(script, guard, 0o600), chown(script), chown(c.log), runAsServerUser(shell))
	if err == nil {
		err = shell.Start()
	}
	if err == nil {
		statusWriter.Close()
		var line string
		if line, err = p.read(startLimit); err == nil {
			p.pid, err = strconv.Atoi(line)
		}
	}
	if err != nil {
		control.Close()
		status.Close()
		if shell.Process != nil {
			_ = shell.Wait() // the guard ends the server, as control is closed
		}
		return nil, fmt.Errorf("start %s: %w", filepath.Base(c.path), err)
	}
	return p, nil
}

// read returns the guard's next line. It reads byte by byte: the pid and the exit code of a process that ends at once
// may arrive together.
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

// running reports whether the server is still running after waiting up to limit for its end.
func (p *process) running(limit time.Duration) bool {
	const interval = 10 * time.Millisecond
	for end := time.Now().Add(limit); ; {
		if p.hasEnded(interval) {
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
	// If the guard itself was killed, nothing reads this.
	_, _ = p.control.WriteString("seen\n")
	p.control.Close()
	p.status.Close()
	_ = p.guard.Wait()
	return true
}

// send signals the server unless it has ended: its pid may have been reused.
func (p *process) send(s signal) error {
	if p.hasEnded(time.Millisecond) {
		return fmt.Errorf("process %d has ended with code %s", p.pid, p.code)
	}
	return sendSignal(p.pid, s)
}

// sendAll signals the server and its children. PostgreSQL makes each of its processes the leader of a process group, so
// one signal to a group does not reach them all.
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
		// A child that has ended needs no signal.
		_ = sendSignal(child, s)
	}
	if err := p.send(s); err != nil || s != killed {
		return err
	}
	if p.running(stopLimit) {
		return fmt.Errorf("process %d is still running %v after SIGKILL", p.pid, stopLimit)
	}
	for end := time.Now().Add(stopLimit); ; time.Sleep(time.Millisecond) {
		children = alive(children)
		if len(children) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v are still running %v after SIGKILL", children, stopLimit)
		}
	}
}

// end signals the server and waits until it has ended.
func (p *process) end(s signal) error {
	if err := p.send(s); err != nil {
		return err
	}
	if !p.running(stopLimit) {
		return nil
	}
	return fmt.Errorf("process %d is still running %v after SIG%s", p.pid, stopLimit, s)
}

// stopLimit is how long a server may take to stop. It is long, because a busy machine may take a minute for the last
// checkpoint.
const stopLimit = 3 * time.Minute

// tempFolder creates a folder for one server, owned by the user that servers run as.
func tempFolder() (string, error) {
	base := os.TempDir()
	if err := reachable(base); err != nil {
		base = "/tmp"
	}
	folder, err := os.MkdirTemp(base, "thalo-es-test-")
	if err != nil {
		return "", err
	}
	return folder, chown(folder)
}

// environment returns the environment of servers and tools. It omits PGHOST and the like, which would redirect them.
func environment(libraries string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/"}
	if libraries != "" {
		env = append(env, "LD_LIBRARY_PATH="+libraries)
	}
	return env
}
