package measure

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// CPUModel is what the processors are called, "" if that is not known. It knows Linux.
func CPUModel() string { return field("/proc/cpuinfo", "model name") }

// Memory is how much the machine has, in bytes, 0 if that is not known. It knows Linux.
func Memory() int64 {
	number, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " ") // in kB
	kilobytes, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// System is what programs are compiled for, and the release of the kernel where it is known.
func System() string {
	system := runtime.GOOS + "/" + runtime.GOARCH
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system += " " + strings.TrimSpace(string(release))
	}
	return system
}

// field returns what stands behind the first "name:" in a file.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
