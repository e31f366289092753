// Package child has a program that measures start itself again, as another process that shares the database with it.
package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A Process is this program, started again with arguments that say what it is to do. They talk by lines.
type Process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *strings.Builder
}

// Start starts a process, and waits for the line by which it says that it is ready. It is killed when the context ends.
func Start(ctx context.Context, args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.CommandContext(ctx, self, args...), stderr: new(strings.Builder)}
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

// Send sends a line to the process.
func (p *Process) Send(line string) error {
	_, err := fmt.Fprintln(p.in, line)
	return err
}

// Line waits for a line of the process.
func (p *Process) Line() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args[1:min(2, len(p.cmd.Args))], " "), err, p.stderr)
	}
	return strings.TrimSpace(line), nil
}

// Close ends the process by closing its input.
func (p *Process) Close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}
