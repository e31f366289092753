package testserver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// JavaClient returns a command that runs a Java program, given as one source file, with Kafka's client library.
func JavaClient(t testing.TB, source string, args ...string) *exec.Cmd {
	t.Helper()
	skipShort(t)
	programs, err := kafkaPrograms(struct{}{})
	if _, lookup := exec.LookPath("javac"); err == nil && lookup != nil {
		err = &unavailableError{errors.New("javac is not in PATH: install a JDK, 17 or newer (Debian: apt-get install default-jdk-headless)")}
	}
	if err != nil {
		skipOrFail(t, err)
	}
	all := slices.Concat([]string{"-Xmx128m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", programs.jars, source}, args)
	return exec.CommandContext(t.Context(), programs.java, all...)
}

// Python returns the path of a Python interpreter with packages such as "cloudevents==1.12.0". They are downloaded into
// the cache if necessary.
func Python(t testing.TB, packages ...string) string {
	t.Helper()
	skipShort(t)
	python, err := pythons(strings.Join(packages, " "))
	if err != nil {
		skipOrFail(t, err)
	}
	return python
}

// pythons returns the interpreter of a virtual environment by its packages.
var pythons = once(func(packages string) (string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", &unavailableError{errors.New("python3 is not in PATH: install it (Debian: apt-get install python3 python3-venv)")}
	}
	version, err := run(exec.Command(python, "--version"))
	if err != nil {
		return "", &unavailableError{err}
	}
	name := fmt.Sprintf("python-%x", sha256.Sum256([]byte(version+packages)))
	folder, err := cached(name[:23], func(folder string) error {
		if _, err := run(exec.Command(python, "-m", "venv", folder)); err != nil {
			return fmt.Errorf("%w (Debian: apt-get install python3-venv)", err)
		}
		args := append([]string{"-m", "pip", "install", "-q", "--disable-pip-version-check"}, strings.Fields(packages)...)
		install := exec.Command(filepath.Join(folder, "bin", "python"), args...)
		install.Env = append(os.Environ(), "PIP_REQUIRE_VIRTUALENV=1")
		_, err := run(install)
		return err
	})
	if err != nil {
		return "", &unavailableError{fmt.Errorf("python packages %s: %w", packages, err)}
	}
	return filepath.Join(folder, "bin", "python"), nil
})
