package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

func TestCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "courses.db")
	for _, step := range []struct{ command, out, err string }{
		{"define go 1", "enrolment.Defined {Course:go Capacity:1}", ""},
		{"register ann", "enrolment.Registered {Student:ann}", ""},
		{"register bob", "enrolment.Registered {Student:bob}", ""},
		{"subscribe go ann", "enrolment.Subscribed {Course:go Student:ann}", ""},
		{"subscribe go ann", "nothing to do", ""},
		{"subscribe go bob", "", "COURSE_FULL"},
		{"capacity go 2", "enrolment.CapacityChanged {Course:go Capacity:2}", ""},
		{"subscribe go bob", "enrolment.Subscribed {Course:go Student:bob}", ""},
		{"capacity go 1", "", "INVALID_CAPACITY"},
		{"unsubscribe go ann", "enrolment.Unsubscribed {Course:go Student:ann}", ""},
		{"subscribe rust ann", "", "NO_COURSE"},
		{"subscribe go cem", "", "NO_STUDENT"},
		{"define go 7", "", "COURSE_EXISTS"},
		{"define go many", "", "capacity \"many\""},
		{"subscribe go", "", "commands:"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), &out, append([]string{file}, strings.Fields(step.command)...))
		if got := strings.TrimSpace(out.String()); got != step.out {
			t.Errorf("%s: %q; want %q", step.command, got, step.out)
		}
		if step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%s: error %v; want %q", step.command, err, step.err)
		}
	}
}

func TestStressDoesNotOverbook(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, []string{"mem:", "stress"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "64 racers: 6 of 6 courses are full") {
		t.Error(out.String())
	}
}

// The check of the stress finds a course with a student too many.
func TestCheckFindsAnOverbookedCourse(t *testing.T) {
	log := new(es.Mem)
	for range capacity + 1 {
		r, err := enrolment.Codec.Encode(enrolment.Subscribed{Course: "go", Student: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		r.Tags = r.Tags[:1] // the course's
		if _, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "course", ID: "go"}, Expected: es.AnyVersion, Events: []es.Record{r}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(t.Context(), new(bytes.Buffer), log, 0); err == nil || !strings.Contains(err.Error(), "course:go has 31") {
		t.Errorf("%v; want the course and its number of subscriptions", err)
	}
}
