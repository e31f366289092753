package measure

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// CPUModel returns the model of the processors. It returns "" on systems other than Linux.
func CPUModel() string { return field("/proc/cpuinfo", "model name") }

// Memory returns the memory of the machine in bytes. It returns 0 on systems other than Linux.
func Memory() int64 {
	number, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " ") // in kB
	kilobytes, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// System returns the operating system and architecture, with the release of the kernel on Linux.
func System() string {
	system := runtime.GOOS + "/" + runtime.GOARCH
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system += " " + strings.TrimSpace(string(release))
	}
	return system
}

// field returns the value after the first "name:" in a file.
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
