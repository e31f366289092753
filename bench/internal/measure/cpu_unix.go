//go:build unix

package measure

import (
	"syscall"
	"time"
)

// CPU is the time of processors that this process has used so far, its C libraries and its system calls with it. It is 0 where that is not known.
func CPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
