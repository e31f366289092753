package main

import (
	"fmt"
	"strings"

	"github.com/thalo-go/es/bench/internal/result"
)

// What stands between these lines of README.md is the report's.
const (
	readmeBegin = "<!-- bench/report: from here -->\n"
	readmeEnd   = "<!-- bench/report: to here -->\n"
)

// three are the figures that matter to someone who is about to choose.
var three = []struct{ name, what string }{
	{"pg-append-128", "appends by 128 writers, against the textbook's transaction"},
	{"pg-hot", "commands of 64 callers on one account, against load, decide, append, and again on a conflict"},
	{"relay-outbox", "publishing to Kafka, each event exactly once, against polling an outbox"},
}

// readme puts the figures that matter and the first chart into a README.
func readme(text string, set *result.Set, charts []chart) (string, error) {
	before, rest, ok := strings.Cut(text, readmeBegin)
	_, after, found := strings.Cut(rest, readmeEnd)
	if !ok || !found {
		return "", fmt.Errorf("it has no place for the figures: lines %q and %q", strings.TrimSpace(readmeBegin), strings.TrimSpace(readmeEnd))
	}
	var b strings.Builder
	b.WriteString(before + readmeBegin)
	rows := 0
	for _, t := range three {
		for _, f := range set.Figures {
			if f.Name != t.name {
				continue
			}
			if rows++; rows == 1 {
				b.WriteString("\n| PostgreSQL | times as fast | |\n| --- | ---: | --- |\n")
			}
			fmt.Fprintf(&b, "| %s | %s | `%s` |\n", t.what, f.Text, f.Name)
		}
	}
	for _, c := range charts {
		if c.name == "append" {
			fmt.Fprintf(&b, "\n![%s](bench/charts/%s.svg)\n", c.caption, c.name)
		}
	}
	b.WriteString("\n" + readmeEnd + after)
	return b.String(), nil
}
