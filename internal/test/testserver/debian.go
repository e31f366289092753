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

// fetchDebian unpacks a package, and those of its dependencies that are not installed, into the cache. So it needs no
// right to install, and no service is started.
func fetchDebian(name string) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil || runtime.GOOS != "linux" {
		return "", fmt.Errorf("%s is not installed and there is no apt-get to download it: install it", name)
	}
	codename, err := releaseName()
	if err != nil {
		return "", err
	}
	return cached(name+"-"+codename, func(folder string) error {
		if err := unpackDebian(folder, name); err != nil {
			return fmt.Errorf("download the package %s (is the network available?): %w", name, err)
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
	// Use separate package lists: the system's may be missing or out of date, and are not ours to update.
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
		// The query compiler takes 100 MB, and the server runs without it.
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

// releaseName returns the codename of the distribution, because releases that share a home folder need separate caches.
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

// libraries returns LD_LIBRARY_PATH for programs unpacked into a folder.
func libraries(folder string) string {
	var path []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		// Glob fails only if the pattern is malformed.
		found, _ := filepath.Glob(filepath.Join(folder, pattern))
		path = append(path, found...)
	}
	return strings.Join(path, ":")
}
