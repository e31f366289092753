//go:build unix

package measure

import (
	"syscall"
	"time"
)

// CPU returns the CPU time of this process so far, with its C libraries and system calls. It returns 0 if the time is not known.
func CPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
