package es_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Without cgo the drivers of SQLite and Kafka lack most of their names. The build must say what to do, and not print pages of undefined
// names.
func TestABuildWithoutCgoSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, packages := range []string{"./sqlite", "./kafka", "./kafka/kafkatest", "./cmd/es", "./..."} {
		for _, verb := range []string{"build", "vet"} {
			cmd := exec.CommandContext(t.Context(), "go", verb, packages)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			output, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("go %s %s works without cgo", verb, packages)
			}
			for line := range strings.SplitSeq(strings.TrimSpace(string(output)), "\n") {
				if !strings.Contains(line, "needs_cgo__set_CGO_ENABLED_1_and_install_a_C_compiler") {
					t.Errorf("go %s %s says more than what to do:\n%.1000s", verb, packages, output)
					break
				}
			}
		}
	}
}
