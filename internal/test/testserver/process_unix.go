//go:build linux || darwin

package testserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const supported = true

// servant is the user that servers run as if the tests run as root, since neither PostgreSQL nor pgbouncer runs as root;
// otherwise nil.
var servant = sync.OnceValue(func() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"nobody", "postgres"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil || uid == 0 {
			continue
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			continue
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
})

// demote makes a command run as the servant, and out of reach of a Ctrl-C meant for the test.
func demote(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: servant()}
	return nil
}

// give makes the servant the owner of a file, or of a folder and all that is in it.
func give(path string) error {
	to := servant()
	if to == nil {
		return nil
	}
	return filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(to.Uid), int(to.Gid))
	})
}

// reachable says whether the servant can enter a folder.
func reachable(folder string) error {
	to := servant()
	if to == nil {
		return nil
	}
	for at := folder; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil && info.Mode()&0o001 == 0 && info.Sys().(*syscall.Stat_t).Uid != to.Uid {
			return fmt.Errorf("%s cannot be entered by user %d, as which servers run because PostgreSQL does not run as root", at, to.Uid)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

func sendSignal(pid int, s signal) error {
	return syscall.Kill(pid, map[signal]syscall.Signal{
		terminate: syscall.SIGTERM,
		interrupt: syscall.SIGINT,
		quit:      syscall.SIGQUIT,
		killed:    syscall.SIGKILL,
		pause:     syscall.SIGSTOP,
		resume:    syscall.SIGCONT,
	}[s])
}

// processes lists every process that has not ended: pid, parent, state.
func processes() (map[int]int, error) {
	// Not every small image of Linux has ps, but all have /proc.
	if stats, err := filepath.Glob("/proc/[0-9]*/stat"); err == nil && len(stats) > 0 {
		parents := map[int]int{}
		for _, file := range stats {
			stat, err := os.ReadFile(file)
			if err != nil {
				continue // it has just ended
			}
			// The name, in parentheses, may itself hold blanks and parentheses.
			after := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			add(parents, filepath.Base(filepath.Dir(file)), after[1], after[0])
		}
		return parents, nil
	}
	out, err := run(exec.Command("ps", "-A", "-o", "pid=,ppid=,state="))
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) == 3 {
			add(parents, fields[0], fields[1], fields[2])
		}
	}
	return parents, nil
}

func add(parents map[int]int, pid, parent, state string) {
	if state[0] == 'Z' {
		return // ended, and its parent has not looked yet
	}
	child, err := strconv.Atoi(pid)
	if err != nil {
		return
	}
	parents[child], _ = strconv.Atoi(parent)
}

func childrenOf(pid int) ([]int, error) {
	parents, err := processes()
	var children []int
	for child, parent := range parents {
		if parent == pid {
			children = append(children, child)
		}
	}
	return children, err
}

// alive returns those of the processes that have not ended.
func alive(pids []int) []int {
	parents, err := processes()
	if err != nil {
		return pids
	}
	var left []int
	for _, pid := range pids {
		if _, ok := parents[pid]; ok {
			left = append(left, pid)
		}
	}
	return left
}

// lock waits for a lock that the kernel releases when its holder dies.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", file, err)
	}
	return func() { f.Close() }, nil
}
