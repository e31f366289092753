//go:build unix

package chaos

import (
	"os"
	"syscall"
)

func halt(p *os.Process) error   { return p.Signal(syscall.SIGSTOP) }
func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
