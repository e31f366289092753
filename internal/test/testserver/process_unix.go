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

// serverUser is the user that servers run as if the tests run as root, because PostgreSQL and pgbouncer refuse to run
// as root. Otherwise it is nil.
var serverUser = sync.OnceValue(func() *syscall.Credential {
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

// runAsServerUser makes a command run as the server user, in its own session so that Ctrl-C does not reach it.
func runAsServerUser(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: serverUser()}
	return nil
}

// chown makes the server user the owner of a file, or of a folder and everything in it.
func chown(path string) error {
	to := serverUser()
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

// reachable returns an error if the server user cannot enter a folder.
func reachable(folder string) error {
	to := serverUser()
	if to == nil {
		return nil
	}
	for at := folder; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil && info.Mode()&0o001 == 0 && info.Sys().(*syscall.Stat_t).Uid != to.Uid {
			return fmt.Errorf("user %d, which runs the servers, cannot enter %s", to.Uid, at)
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

// processes returns the parent of every process that has not ended.
func processes() (map[int]int, error) {
	// Small Linux images may lack ps, but all have /proc.
	if stats, err := filepath.Glob("/proc/[0-9]*/stat"); err == nil && len(stats) > 0 {
		parents := map[int]int{}
		for _, file := range stats {
			stat, err := os.ReadFile(file)
			if err != nil {
				continue // it has ended
			}
			// The name in parentheses may contain spaces and parentheses.
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
		return // ended, and its parent has not waited for it yet
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

// alive returns the processes that have not ended.
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

// tryLock locks a file, or returns errLocked if another process holds the lock.
func tryLock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// lock waits for a file lock. The kernel releases it when its holder dies.
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
