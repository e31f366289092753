package relay

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// The form of checkpoints is frozen: a relay of an older release may take over from this one, and the other way round. Fields may be added,
// and their zero value must mean what it meant before them.
func TestTheFormOfCheckpointsIsFrozen(t *testing.T) {
	golden, err := os.ReadFile("testdata/checkpoint.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var c checkpoint
	if err := json.Unmarshal(golden, &c); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var old, written any
	for text, into := range map[string]*any{string(golden): &old, string(text): &written} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	contains(t, "checkpoint", written, old)
}

// contains fails the test unless a JSON value has everything that an older one has.
func contains(t *testing.T, path string, written, old any) {
	t.Helper()
	fields, isObject := old.(map[string]any)
	if !isObject {
		if !reflect.DeepEqual(written, old) {
			t.Errorf("%s is written as %v, an older release wrote %v", path, written, old)
		}
		return
	}
	now, _ := written.(map[string]any)
	for name, value := range fields {
		contains(t, path+"."+name, now[name], value)
	}
}
