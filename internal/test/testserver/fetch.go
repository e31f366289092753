package testserver

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed pom.xml
var pom []byte

// fetchLimit ends a download that hangs, for example behind a firewall that drops packets.
const fetchLimit = 5 * time.Minute

// cacheFolder returns the folder for downloads. The user that servers run as must be able to enter it, which root's own
// cache folder does not allow.
func cacheFolder() (string, error) {
	folder := os.Getenv("ES_TEST_CACHE")
	if folder == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder: %w; set ES_TEST_CACHE to one", err)
		}
		if err := reachable(user); err != nil {
			user = "/var/cache"
		}
		folder = filepath.Join(user, "thalo-es-testserver")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("no cache folder: %w; set ES_TEST_CACHE to a writable one", err)
	}
	return folder, reachable(folder)
}

// cached returns the folder of this name in the cache. The first process that needs it fills it, while the others wait.
// The folder gets its name when it is complete, so a killed process leaves no partial folder.
func cached(name string, fill func(folder string) error) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, name)
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	partial := filepath.Join(cache, "partial")
	defer os.RemoveAll(partial)
	if err := errors.Join(os.RemoveAll(partial), os.Mkdir(partial, 0o755), os.Chmod(partial, 0o755)); err != nil {
		return "", err
	}
	if err := fill(partial); err != nil {
		return "", err
	}
	return folder, os.Rename(partial, folder)
}

// once calls f at most once for each key in this process. So a hundred tests do not wait a hundred times for a network
// that is unavailable.
func once[K comparable, V any](f func(K) (V, error)) func(K) (V, error) {
	var mu sync.Mutex
	answers := map[K]func() (V, error){}
	return func(key K) (V, error) {
		mu.Lock()
		answer, ok := answers[key]
		if !ok {
			answer = sync.OnceValues(func() (V, error) { return f(key) })
			answers[key] = answer
		}
		mu.Unlock()
		return answer()
	}
}

// fetchMaven makes Maven copy the dependencies of one profile of the pom into folder/jars.
func fetchMaven(folder, profile string, properties ...string) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("mvn is not in PATH: install Maven (Debian: apt-get install maven)")
	}
	file := filepath.Join(folder, "pom.xml")
	if err := os.WriteFile(file, pom, 0o644); err != nil {
		return err
	}
	args := []string{"-B", "-q", "-f", file, "-P", profile, "dependency:copy-dependencies", "-DoutputDirectory=" + filepath.Join(folder, "jars")}
	for _, property := range properties {
		args = append(args, "-D"+property)
	}
	if _, err := run(exec.Command(mvn, args...)); err != nil {
		return fmt.Errorf("download %s with Maven (is the network available?): %w", strings.Join(properties, " "), err)
	}
	return nil
}

// fetchZonky unpacks a release of the binaries that zonky.io builds for tests: postgres, initdb and pg_ctl only.
func fetchZonky(folder, release string) error {
	arch := map[string]string{"amd64": "amd64", "arm64": "arm64v8"}[runtime.GOARCH]
	if arch == "" || !supported {
		return fmt.Errorf("no PostgreSQL binaries for %s/%s: set ES_TEST_POSTGRES to the URL of a server", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := exec.LookPath("xz"); err != nil && runtime.GOOS == "linux" {
		return errors.New("xz, which tar needs, is not in PATH: install it (Debian: apt-get install xz-utils)")
	}
	if err := fetchMaven(folder, "postgres", "platform="+runtime.GOOS+"-"+arch, "release="+release); err != nil {
		return err
	}
	jars, err := filepath.Glob(filepath.Join(folder, "jars", "*.jar"))
	if err != nil {
		return err
	}
	if len(jars) != 1 {
		return fmt.Errorf("found %d jars for PostgreSQL %s instead of one", len(jars), release)
	}
	if err := unpackZonky(jars[0], folder); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(jars[0]), err)
	}
	return os.RemoveAll(filepath.Join(folder, "jars"))
}

func unpackZonky(jar, folder string) error {
	archive, err := zip.OpenReader(jar)
	if err != nil {
		return err
	}
	defer archive.Close()
	at := slices.IndexFunc(archive.File, func(file *zip.File) bool { return filepath.Ext(file.Name) == ".txz" })
	if at < 0 {
		return errors.New("the jar has no .txz file")
	}
	packed, err := archive.File[at].Open()
	if err != nil {
		return err
	}
	defer packed.Close()
	tar := exec.Command("tar", "-xJpf", "-", "-C", folder)
	tar.Stdin = packed
	_, err = run(tar)
	return err
}

// run runs a command and returns its standard output. An error contains the last lines of its output.
func run(command *exec.Cmd) (string, error) {
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(command.Path), err)
	}
	limit := time.AfterFunc(fetchLimit, func() { _ = command.Process.Kill() })
	defer limit.Stop()
	if err := command.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", filepath.Base(command.Path), err, tail(out.String()+complaints.String(), 20))
	}
	return out.String(), nil
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
