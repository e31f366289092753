package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

func TestTagsSelectEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "courses.db")
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	event := func(data string, tags ...string) es.Record {
		return es.Record{Type: "subscribed", Data: []byte(data), Tags: tags}
	}
	_, err = store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "course", ID: "go"}, Events: []es.Record{
		event("1", "course:go", "student:ann"), event("2", "course:go", "student:bob"), event("3", "course:go", "student:ann", "late"),
	}})
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{{"read", "course/go"}, {"tail"}} {
		for tags, want := range map[string]string{"student:ann": "1 3", "student:ann late": "3", "course:go": "1 2 3"} {
			args := append([]string{"-s", path}, verb...)
			for tag := range strings.FieldsSeq(tags) {
				args = append(args, "--tag", tag)
			}
			code, stdout, stderr := program(t, append(args, "-json")...)
			var got []string
			for line := range strings.Lines(stdout) {
				for _, n := range []string{"1", "2", "3"} {
					if strings.Contains(line, `"data":`+n) {
						got = append(got, n)
					}
				}
			}
			if code != exitOK || strings.Join(got, " ") != want {
				t.Errorf("%s with %q: events %q, code %d, %s; want %q", verb, tags, got, code, stderr, want)
			}
		}
	}
	if code, _, stderr := program(t, "-s", path, "read", "course/go", "--tag", "none"); code == exitOK || !strings.Contains(stderr, `all of the tags ["none"]`) {
		t.Errorf("no event has the tag: code %d, %s", code, stderr)
	}
}
