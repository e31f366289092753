package testserver

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// fetchDebian unpacks a package, and those it depends on that are not installed, into the cache. So it needs no right to
// install, and no service that a package would start is started.
func fetchDebian(name string) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil || runtime.GOOS != "linux" {
		return "", fmt.Errorf("it is not installed, and there is no apt-get to fetch it with: install %s", name)
	}
	codename, err := releaseName()
	if err != nil {
		return "", err
	}
	return cached(name+"-"+codename, func(folder string) error {
		if err := unpackDebian(folder, name); err != nil {
			return fmt.Errorf("fetch the package %s (is the network there?): %w", name, err)
		}
		return nil
	})
}

func unpackDebian(folder, name string) error {
	work := filepath.Join(folder, ".apt")
	lists, archives := filepath.Join(work, "lists"), filepath.Join(work, "archives")
	if err := errors.Join(os.MkdirAll(filepath.Join(lists, "partial"), 0o755), os.MkdirAll(filepath.Join(archives, "partial"), 0o755)); err != nil {
		return err
	}
	// Lists of our own, as the system's may be missing or out of date and are not ours to renew.
	apt := func(args ...string) *exec.Cmd {
		c := exec.Command("apt-get", append([]string{"-q", "-o", "Dir::State::Lists=" + lists, "-o", "Dir::Cache=" + work, "-o", "APT::Sandbox::User=root"}, args...)...)
		c.Dir, c.Env = archives, append(os.Environ(), "LC_ALL=C")
		return c
	}
	if _, err := run(apt("update")); err != nil {
		return err
	}
	plan, err := run(apt("--simulate", "--no-install-recommends", "install", name))
	if err != nil {
		return err
	}
	download := []string{"download"}
	for line := range strings.Lines(plan) {
		fields := strings.Fields(line)
		// The compiler of queries is a hundred megabytes, and the server does without when it is not there.
		if len(fields) > 1 && fields[0] == "Inst" && !strings.HasPrefix(fields[1], "libllvm") {
			download = append(download, fields[1])
		}
	}
	if _, err := run(apt(download...)); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range packages {
		if _, err := run(exec.Command("dpkg-deb", "--extract", file, folder)); err != nil {
			return err
		}
	}
	return os.RemoveAll(work)
}

// releaseName tells the caches of two releases apart that share a home.
func releaseName() (string, error) {
	file, err := os.Open("/etc/os-release")
	if err != nil {
		return "", err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
			return name, nil
		}
	}
	return "", errors.New("/etc/os-release has no VERSION_CODENAME")
}

// libraries returns the LD_LIBRARY_PATH for programs that were unpacked into a folder.
func libraries(folder string) string {
	var path []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		// The pattern is well formed, which is all that can be wrong.
		found, _ := filepath.Glob(filepath.Join(folder, pattern))
		path = append(path, found...)
	}
	return strings.Join(path, ":")
}
