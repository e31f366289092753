// Package child runs the test binary again as another process, for tests of several processes.
//
// TestMain calls [Main] with the functions that child processes can run. A test starts one of them with [Start].
// A child process talks to the test in lines on its standard output. It should end when its standard input does,
// which happens when the test closes it and also when the test's process is killed.
package child

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// variable names the environment variable with the name of the function that a child process runs.
const variable = "ES_TEST_CHILD"

// parentVariable names the environment variable with the process ID of the test.
const parentVariable = "ES_TEST_PARENT"

// Func is what a child process does. Its context ends when the standard input does.
type Func func(ctx context.Context, args []string) error

// Main runs a function and exits if this process is a child. Otherwise it returns.
func Main(funcs map[string]Func) {
	name := os.Getenv(variable)
	if name == "" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the end is all that matters
		cancel()
	}()
	go exitWith(os.Getenv(parentVariable))
	do, found := funcs[name]
	if !found {
		do = func(context.Context, []string) error { return fmt.Errorf("there is no child function %q", name) }
	}
	if err := do(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// exitWith ends this process when its parent has ended, even if the function ignores its context.
func exitWith(parent string) {
	for range time.Tick(time.Second) {
		if strconv.Itoa(os.Getppid()) != parent {
			os.Exit(3)
		}
	}
}

// Say prints a line for the test. It is written in one piece, so that a process that is killed leaves no partial line.
func Say(values ...any) {
	fmt.Fprintln(os.Stdout, values...)
}

// Ready tells the test that the child is ready, and waits until the test closes its input.
// It returns a context that does not end with the input.
func Ready(ctx context.Context) context.Context {
	Say("ready")
	<-ctx.Done()
	return context.WithoutCancel(ctx)
}

// Process is a child process.
type Process struct {
	*os.Process
	command *exec.Cmd
	input   io.Closer
	wait    func() error

	mu     sync.Mutex
	lines  []string // all complete lines so far
	read   int      // the number of lines that Line has returned
	more   chan struct{}
	ended  chan struct{} // closed when the output has ended
	stderr bytes.Buffer  // complete after wait
}

// Start starts a child process that runs the function with this name. It is killed at the end of the test.
func Start(t testing.TB, name string, args ...any) *Process {
	t.Helper()
	command, err := Command(context.Background(), []string{variable + "=" + name})
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{command: command, more: make(chan struct{}, 1), ended: make(chan struct{})}
	for _, arg := range args {
		p.command.Args = append(p.command.Args, fmt.Sprint(arg))
	}
	p.command.Stderr = &p.stderr
	if p.input, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	p.Process = p.command.Process
	p.wait = sync.OnceValue(func() error {
		<-p.ended
		return p.command.Wait()
	})
	go p.readLines(output)
	t.Cleanup(func() {
		p.Stop()
		if p.stderr.Len() > 0 {
			t.Logf("child process %s: %s", name, &p.stderr)
		}
	})
	return p
}

func (p *Process) readLines(output io.Reader) {
	defer close(p.ended)
	for lines := bufio.NewReader(output); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return // a partial line does not count
		}
		p.mu.Lock()
		p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

// Lines returns the lines that the child has printed so far.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// Await waits until the child has printed n lines, or its output has ended, and returns all lines so far.
// Only one goroutine at a time may wait for lines.
func (p *Process) Await(n int) []string {
	for {
		if lines := p.Lines(); len(lines) >= n {
			return lines
		}
		select {
		case <-p.more:
		case <-p.ended:
			return p.Lines()
		}
	}
}

// Line returns the next line. It fails the test if the output ends before it.
func (p *Process) Line(t testing.TB) string {
	t.Helper()
	lines := p.Await(p.read + 1)
	if len(lines) <= p.read {
		err := p.wait()
		t.Fatalf("the child process ended: %v\n%s", err, &p.stderr)
	}
	p.read++
	return lines[p.read-1]
}

// CloseInput closes the input of the child.
func (p *Process) CloseInput(t testing.TB) {
	t.Helper()
	if err := p.input.Close(); err != nil {
		t.Fatal(err)
	}
}

// Release waits until children have called [Ready], and then lets all of them continue.
func Release(t testing.TB, children ...*Process) {
	t.Helper()
	for _, p := range children {
		if line := p.Line(t); line != "ready" {
			t.Fatalf("the child process said %q, want ready", line)
		}
	}
	for _, p := range children {
		p.CloseInput(t)
	}
}

// Finish waits until the child has ended, and returns the lines that Line has not returned. It fails the test if the child failed.
func (p *Process) Finish(t testing.TB) []string {
	t.Helper()
	if err := p.wait(); err != nil {
		t.Fatalf("the child process: %v\n%s", err, &p.stderr)
	}
	return p.Lines()[p.read:]
}

// Stop kills the child with SIGKILL if it has not ended, and waits until it has.
func (p *Process) Stop() {
	_ = p.Kill() // an error means that it has ended
	_ = p.wait() // an error means that it was killed
}
