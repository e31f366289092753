package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	t.Setenv(keyVariable, strings.Repeat("0a", 32))
	folder := t.TempDir()
	log, keys := filepath.Join(folder, "log.db"), filepath.Join(folder, "keys.db")
	steps := func(steps ...[3]string) {
		t.Helper()
		for _, step := range steps {
			var out bytes.Buffer
			err := run(t.Context(), &out, append([]string{log, keys}, strings.Fields(step[0])...))
			if got := strings.TrimSpace(out.String()); got != step[1] || (err == nil) != (step[2] == "") || err != nil && !strings.Contains(err.Error(), step[2]) {
				t.Errorf("%s: %q, %v; want %q, %q", step[0], got, err, step[1], step[2])
			}
		}
	}
	steps(
		[3]string{"show ann", "ann is not registered", ""},
		[3]string{"register ann Ann@example.com", "", ""},
		[3]string{"show ann", "ann ann@example.com", ""},
		[3]string{"email ann ann@example.org", "", ""},
		[3]string{"show ann", "ann ann@example.org", ""},
		[3]string{"show", "", "usage"},
	)
	backup, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	steps(
		[3]string{"forget ann", "", ""},
		[3]string{"show ann", "ann was erased", ""},
		[3]string{"email ann late@example.com", "", "was erased"},
		[3]string{"forget ann", "", ""},
	)
	if err := os.WriteFile(keys, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	steps(
		[3]string{"email ann late@example.com", "the key of profile/ann was there although it was erased: destroyed again", "was erased"},
		[3]string{"show ann", "ann was erased", ""},
	)
	t.Setenv(keyVariable, "0a")
	steps([3]string{"show ann", "", "usage"})
}
