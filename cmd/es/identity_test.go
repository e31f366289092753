package main

import (
	"strings"
	"testing"

	"github.com/thalo-go/es"
)

func TestReplayRefilterAndRename(t *testing.T) {
	path := bank(t)
	project(t, path, func([]es.Record) error { return nil }, at(t, 7, 0))
	for _, test := range []struct {
		code   int
		stdout string
		stderr string
		args   []string
	}{
		{exitFailed, "", "confirm with --yes", []string{"replay", "balances@2", "--after", "0"}},
		{exitUsage, "", "--head", []string{"replay", "balances@2", "--yes"}},
		{exitUsage, "", "--head", []string{"replay", "balances@2", "--head", "--after", "0", "--yes"}},
		{exitFailed, "", "skip what it has not handled: confirm with --yes", []string{"replay", "balances@2", "--head"}},
		{exitOK, "balances@2: replay requested", "", []string{"replay", "balances@2", "--head", "--yes"}},
		{exitOK, "balances@2: replay requested", "", []string{"replay", "balances@2", "--beginning", "--yes"}},
		{exitFailed, "", "cannot start after position 99", []string{"replay", "balances@2", "--after", "99", "--yes"}},
		{exitOK, "balances@2: replay requested", "", []string{"replay", "balances@2", "--after", "0", "--yes"}},
		{exitUsage, "", "past", []string{"refilter", "balances@2"}},
		{exitFailed, "", "it does not exist", []string{"refilter", "balances", "--past", "skip"}},
		{exitOK, "balances@2: changed filter accepted", "", []string{"refilter", "balances@2", "--kinds", "account,owner", "--past", "replay"}},
		{exitFailed, "", "it does not exist", []string{"rename", "nothing", "sums"}},
		{exitOK, "sums: renamed from balances", "", []string{"rename", "balances", "sums"}},
	} {
		code, stdout, stderr := program(t, append([]string{"-s", path}, test.args...)...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
			t.Errorf("es %q: exit code %d, want %d; want %q in:\n%s\nand %q in:\n%s", test.args, code, test.code, test.stdout, stdout, test.stderr, stderr)
		}
	}
	if _, stdout, _ := program(t, "-s", path, "status", "-json"); !strings.Contains(stdout, `"name":"sums"`) || !strings.Contains(stdout, `"filter":{"kinds":["account","owner"]}`) {
		t.Errorf("es status prints:\n%s", stdout)
	}
}
