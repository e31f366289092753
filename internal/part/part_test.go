package part_test

import (
	"testing"

	"github.com/thalo-go/es/internal/part"
)

// The part of a stream must never change, because checkpoints depend on it.
func TestOf(t *testing.T) {
	for _, test := range []struct {
		stream string
		of     int
		want   string
	}{
		{"account/ann", 0, "0/1"}, {"account/ann", 1, "0/1"}, {"account/ann", 2, "0/2"}, {"account/ann", 16, "4/16"}, {"account/bob", 16, "8/16"}, {"", 16, "5/16"},
	} {
		if got := part.Of(test.stream, test.of).String(); got != test.want {
			t.Errorf("%q of %d is in %s, and was in %s", test.stream, test.of, got, test.want)
		}
	}
}

// FuzzParse looks for a name that does not survive Parse and String.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"0/1", "3/4", "4/4", "-1/4", "+0/1", "00/1", "0/", "/", "0/1/2", "0/99999999999999999999"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if p, err := part.Parse(name); err == nil && (p.String() != name || p.I < 0 || p.I >= p.Of) {
			t.Errorf("%q is %+v", name, p)
		}
		for _, of := range []int{1, 7} {
			p := part.Of(name, of)
			if back, err := part.Parse(p.String()); err != nil || back != p || part.Names(of)[p.I] != p.String() {
				t.Errorf("%q is in %+v, whose name is read as %+v, %v", name, p, back, err)
			}
		}
	})
}
