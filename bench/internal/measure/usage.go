package measure

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
)

// Usage is the CPU time and memory that an operation has used.
type Usage struct {
	CPU    time.Duration // of this process
	Server time.Duration // of a server's processes
	Allocs int64         // allocations on the Go heap
	Bytes  int64         // of these allocations
}

// Using returns the usage of the whole process while do runs, so nothing else should run in the process. server, if not nil, returns the CPU
// time of a server so far.
func Using(server func() time.Duration, do func() error) (Usage, error) {
	before := used(server)
	err := do()
	after := used(server)
	return Usage{after.CPU - before.CPU, after.Server - before.Server, after.Allocs - before.Allocs, after.Bytes - before.Bytes}, err
}

// Add adds another usage.
func (u *Usage) Add(v Usage) {
	u.CPU += v.CPU
	u.Server += v.Server
	u.Allocs += v.Allocs
	u.Bytes += v.Bytes
}

func used(server func() time.Duration) Usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := Usage{CPU: CPU(), Allocs: int64(m.Mallocs), Bytes: int64(m.TotalAlloc)}
	if server != nil {
		u.Server = server()
	}
	return u
}

// CPUOf returns the CPU time of a process and its children so far, with children that have ended. It returns 0 on systems without /proc.
func CPUOf(pid int) time.Duration {
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	sum := ticks(own, 11, 12, 13, 14) // utime and stime of the process and of the children it has waited for
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for child := range bytes.FieldsSeq(children) {
		if stat, err := os.ReadFile("/proc/" + string(child) + "/stat"); err == nil {
			sum += ticks(stat, 11, 12)
		}
	}
	return time.Duration(sum) * (time.Second / 100) // USER_HZ is 100 on every Linux that Go runs on
}

// ticks adds up fields of a stat file. Field 0 is the state of the process, which follows its name.
func ticks(stat []byte, fields ...int) (sum int64) {
	_, rest, _ := bytes.Cut(stat[max(bytes.LastIndexByte(stat, ')'), 0):], []byte(" "))
	all := bytes.Fields(rest)
	for _, i := range fields {
		if i < len(all) {
			n, err := strconv.ParseInt(string(all[i]), 10, 64)
			if err == nil {
				sum += n
			}
		}
	}
	return sum
}
