package measure

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
)

// Settle frees what can be freed and hands it back to the system, so that what is in use is what is needed.
func Settle() { debug.FreeOSMemory() }

// HeapInUse is the Go heap in use, in bytes: what is reachable and what is not yet collected.
func HeapInUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// Resident is the memory of the process, in bytes, with that of C libraries. Where the system has no /proc
// it is what the Go runtime holds, which leaves those out.
func Resident() int64 {
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := bytes.Fields(statm); len(fields) > 1 {
			if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
				return pages * int64(os.Getpagesize())
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}
