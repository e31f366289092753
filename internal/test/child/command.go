package child

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// Command returns a command that runs this program with the given arguments and further environment variables. Under the race
// detector the process ends at its first race, and without a delay.
func Command(ctx context.Context, environment []string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return CommandOf(ctx, self, environment, args...), nil
}

// CommandOf is [Command] for another program.
func CommandOf(ctx context.Context, program string, environment []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(append(os.Environ(), parentVariable+"="+strconv.Itoa(os.Getpid()), "GORACE=atexit_sleep_ms=0 halt_on_error=1 "+os.Getenv("GORACE")), environment...)
	return cmd
}

// ExitWithParent ends this process when its standard input is closed, as it is when the parent has ended. Run it in a goroutine
// of a child that does not read its input.
func ExitWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(3)
}
