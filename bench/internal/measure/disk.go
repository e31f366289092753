package measure

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Sync returns the time to append a page to a file in a folder and to sync it: the median of several tries. This is the minimal time of a
// commit, so it is the most important number about a machine on which stores are compared.
func Sync(dir string) (cost time.Duration, err error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var costs []time.Duration
	for range 64 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		costs = append(costs, time.Since(begin))
	}
	return Percentile(costs, 50), nil
}

// InMemory reports whether a folder is on a file system in memory. It returns false on systems other than Linux.
func InMemory(dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target
	}
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return false
	}
	defer f.Close()
	mount, kind := "", ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // device, mount point, type
		if len(fields) < 3 {
			continue
		}
		within := dir == fields[1] || strings.HasPrefix(dir, strings.TrimSuffix(fields[1], "/")+"/")
		if within && len(fields[1]) >= len(mount) {
			mount, kind = fields[1], fields[2]
		}
	}
	return kind == "tmpfs" || kind == "ramfs"
}
