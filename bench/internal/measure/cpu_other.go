//go:build !unix

package measure

import "time"

// CPU is 0: how much time of processors this process has used is not known here.
func CPU() time.Duration { return 0 }
