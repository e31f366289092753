package otel_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Attributes and labels have the names of the keys in the log, so that one can be searched for what the other says.
func TestNamesAreThoseOfTheLog(t *testing.T) {
	keys := make(map[string]bool)
	call := regexp.MustCompile(`(?s)\.(?:Debug|Info|Warn|Error|With)\((.*?)\)\n`)
	key := regexp.MustCompile(`"([a-z]\w*)",`)
	own := make(map[string]bool)
	attribute := regexp.MustCompile(`attribute\.(?:Key|String|Int|Bool)\("([\w.]+)"`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range call.FindAllStringSubmatch(string(text), -1) {
			for _, k := range key.FindAllStringSubmatch(m[1], -1) {
				keys[k[1]] = true
			}
		}
		if filepath.Base(filepath.Dir(path)) == "otel" {
			for _, m := range attribute.FindAllStringSubmatch(string(text), -1) {
				own[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// What no message of the log says.
	unlogged := map[string]bool{
		"events": true, "repeated": true, "batch.size": true, "batch.wait": true, "queue.wait": true, "code": true, "error.type": true,
		"outcome": true, "hit": true, "le": true, "kind": true, "prefix": true,
	}
	if len(own) < 10 {
		t.Fatalf("found only the attributes %v", own)
	}
	for name := range own {
		name = strings.TrimPrefix(name, "es.")
		if logged := keys[name]; logged == unlogged[name] {
			t.Errorf("%s is a key of the log: %v; it is among those that are not: %v", name, logged, unlogged[name])
		}
	}
}
