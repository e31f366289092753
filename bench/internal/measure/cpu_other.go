//go:build !unix

package measure

import "time"

// CPU returns 0, because the CPU time of this process is not known on this system.
func CPU() time.Duration { return 0 }
