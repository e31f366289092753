package main

import (
	"strings"
	"testing"
)

func TestRedactErases(t *testing.T) {
	path := bank(t)
	for _, test := range []struct {
		says string
		code int
		args []string
	}{
		{"confirm with --yes", exitFailed, []string{"account/ann", "3", "--reason", "request 17"}},
		{"missing flags: --reason", exitUsage, []string{"account/ann", "3", "--yes"}},
		{"there is no version 4: the stream ends at version 3", exitFailed, []string{"account/ann", "4", "--reason", "request 17", "--yes"}},
		{"the stream has no events", exitFailed, []string{"account/none", "1", "--reason", "request 17", "--yes"}},
		{"use kind/id", exitFailed, []string{"ann", "1", "--reason", "request 17", "--yes"}},
	} {
		if code, _, stderr := program(t, append([]string{"-s", path, "redact"}, test.args...)...); code != test.code || !strings.Contains(stderr, test.says) {
			t.Errorf("es redact %q: exit code %d, and it should say %q:\n%s", test.args, code, test.says, stderr)
		}
	}
	expect(t, "redact.txt", path, "redact", "account/ann", "3", "--reason", "request 17", "--yes")
	expect(t, "redact.json", path, "redact", "account/ann", "2", "--reason", "request 17", "--yes", "-json")
	expect(t, "redact-again.txt", path, "redact", "account/ann", "3", "--reason", "request 17", "--yes")
	expect(t, "redact-read.txt", path, "read", "account/ann")
	if code, stdout, stderr := program(t, "-s", path, "verify"); code != exitOK {
		t.Errorf("verify after redactions: exit code %d:\n%s%s", code, stdout, stderr)
	}
}
