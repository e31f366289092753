package measure

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
)

// Settle collects garbage and returns free memory to the system, so that only live memory is measured.
func Settle() { debug.FreeOSMemory() }

// HeapInUse returns the bytes of the Go heap in use, with garbage that is not yet collected.
func HeapInUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// Resident returns the memory of the process in bytes, with that of C libraries. On systems without /proc it returns the memory that the Go
// runtime holds, without C libraries.
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
