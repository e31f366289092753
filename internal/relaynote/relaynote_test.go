package relaynote_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/thalo-go/es/internal/relaynote"
)

func TestParse(t *testing.T) {
	want := relaynote.Note{Position: 12, Behind: 3, Rate: 250, Age: 1500 * time.Millisecond}
	if got, ok := relaynote.Parse(want.String()); !ok || got != want {
		t.Errorf("%q became %+v, %v", want, got, ok)
	}
	for _, text := range []string{"", "broker 1 of 3:\nrefused, error: 7"} {
		with := want
		with.Throttle, with.Error = 300*time.Millisecond, text
		if got, ok := relaynote.Parse(with.String()); !ok || got != with {
			t.Errorf("%q became %+v, %v", with, got, ok)
		}
	}
	long := relaynote.Note{Error: strings.Repeat("ä", 1000) + "\x00"}.String()
	if len(long) > 600 || !utf8.ValidString(long) {
		t.Errorf("the note of a long error has %d bytes", len(long))
	}
	want.Age = 0
	if got, ok := relaynote.Parse("position 12, 3 behind, 250 records/s"); !ok || got != want {
		t.Errorf("the note of the release before became %+v, %v", got, ok)
	}
	for _, text := range []string{"", "working", "position x, 3 behind, 2 records/s", "position 99999999999999999999, 3 behind, 2 records/s", want.String() + " "} {
		if got, ok := relaynote.Parse(text); ok {
			t.Errorf("%q became %+v", text, got)
		}
	}
}

func TestRelay(t *testing.T) {
	for _, test := range []struct {
		lease, topics, name string
		ok                  bool
	}{
		{relaynote.Lease("bank", "relay"), "bank", "relay", true},
		{relaynote.Lease("a/b", "c"), "a/b", "c", true},
		{"relay/x", "", "", false},
		{"reports", "", "", false},
		{"other/x/y", "", "", false},
	} {
		if topics, name, ok := relaynote.Relay(test.lease); topics != test.topics || name != test.name || ok != test.ok {
			t.Errorf("%q is of %q, %q, %v", test.lease, topics, name, ok)
		}
	}
}
