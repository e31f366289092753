package xes_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es/examples/loans/xes"
)

// FuzzRead calls Read with arbitrary bytes, also compressed and truncated. The results must agree, or report the truncation.
func FuzzRead(f *testing.F) {
	f.Add([]byte(small), len(small))
	f.Add([]byte(small), len(small)/2)
	f.Add([]byte("\ufeff"+small), 3)
	f.Add([]byte(strings.ReplaceAll(small, "<trace/>", "<event/>")), 40)
	f.Add([]byte(strings.ReplaceAll(small, "UTF-8", "latin1")), 1)
	f.Add([]byte(`<log><global scope="event"><id key="k"/></global><trace><event><id key="k"><id key="k"/></id></event></trace></log>`), 100)
	f.Add([]byte(`<log><trace></log></trace>`), 12)
	f.Add([]byte(`<!DOCTYPE log [<!ENTITY e "x">]><log><string key="&e;"/></log>`), 0)
	f.Add(pack(f, small), 100)
	f.Fuzz(func(t *testing.T, file []byte, cut int) {
		traces, err := collect(bytes.NewReader(file))
		lines := 1 + bytes.Count(file, []byte("\n"))
		packed := bytes.HasPrefix(file, []byte{0x1f, 0x8b})
		if err != nil {
			var broken *xes.Error
			if !errors.As(err, &broken) || broken.Line < 1 || broken.Line > lines && !packed {
				t.Errorf("error %#v of a file of %d lines", err, lines)
			}
		}
		for _, trace := range traces {
			sound(t, trace.Attributes)
			at := trace.Line
			for _, event := range trace.Events {
				if sound(t, event.Attributes); event.Line < at {
					t.Errorf("an event of line %d comes after line %d", event.Line, at)
				}
				at = event.Line
			}
		}
		if packed {
			return
		}
		again, errAgain := collect(bytes.NewReader(pack(t, string(file))))
		if d := cmp.Diff(traces, again); d != "" || (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() {
			t.Errorf("packed: %v, plain: %v\n%s", errAgain, err, d)
		}
		before, _ := collect(bytes.NewReader(file[:min(max(cut, 0), len(file))]))
		if len(before) > len(traces) || len(before) > 0 && !cmp.Equal(traces[:len(before)], before) {
			t.Errorf("the file has the traces %+v, cut off %+v", traces, before)
		}
	})
}

// sound checks that each attribute of a list has a known type and a unique key.
func sound(t *testing.T, attributes xes.Attributes) {
	t.Helper()
	seen := make(map[string]bool)
	for _, a := range attributes {
		if a.Key == "" || a.Type == "" || seen[a.Key] {
			t.Errorf("attribute %+v of %+v", a, attributes)
		}
		seen[a.Key] = true
	}
}
