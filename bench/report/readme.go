package main

import (
	"fmt"
	"strings"

	"github.com/thalo-go/es/bench/internal/result"
)

// The report replaces the text between these lines of README.md.
const (
	readmeBegin = "<!-- bench/report: from here -->\n"
	readmeEnd   = "<!-- bench/report: to here -->\n"
)

// three are the main figures for a reader who is choosing a toolkit.
var three = []struct{ name, what string }{
	{"pg-append-128", "appends by 128 writers, against a textbook transaction"},
	{"pg-hot", "commands of 64 callers on one account, against load, decide, append with retries on conflict"},
	{"relay-outbox", "publishing to Kafka exactly once, against polling an outbox"},
}

// readme writes the main figures and the first chart into a README.
func readme(text string, set *result.Set, charts []chart) (string, error) {
	before, rest, ok := strings.Cut(text, readmeBegin)
	_, after, found := strings.Cut(rest, readmeEnd)
	if !ok || !found {
		return "", fmt.Errorf("the lines %q and %q are missing", strings.TrimSpace(readmeBegin), strings.TrimSpace(readmeEnd))
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
