package work

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/thalo-go/es/internal/test/child"
)

// A Process is this program as a child process. Parent and child exchange lines on the child's standard input and output. The parent
// ends the child by closing its input, which also happens when the parent dies.
//
// Its methods must not be called concurrently.
type Process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *strings.Builder
}

// StartProcess starts a child with arguments that describe its task, and waits for its first line, which reports that it is ready. The
// child is killed when the context is done.
func StartProcess(ctx context.Context, args ...string) (*Process, error) {
	cmd, err := child.Command(ctx, nil, args...)
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, stderr: new(strings.Builder)}
	p.cmd.Stderr = p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := p.Line(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Send sends a line to the child.
func (p *Process) Send(line string) error {
	_, err := fmt.Fprintln(p.in, line)
	return err
}

// Line waits for a line from the child. An error includes what the child wrote to standard error.
func (p *Process) Line() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("child %s: %w: %s", strings.Join(p.cmd.Args[1:min(2, len(p.cmd.Args))], " "), err, p.stderr)
	}
	return strings.TrimSpace(line), nil
}

// Close ends the child by closing its input, and waits for it.
func (p *Process) Close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
