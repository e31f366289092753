package es_test

import (
	"testing"

	"github.com/thalo-go/es"
)

// The form of snapshots is frozen, because stores keep them for years. A change makes every aggregate read its whole history once.
func TestTheFormOfSnapshotsIsFrozen(t *testing.T) {
	const want = `{"Digest":18097628631784500458,"Layout":11041271160148206213,"State":{"N":3}}`
	mem := new(es.Mem)
	repo := withSnapshots(mem, mem, 1)
	for range 3 {
		if _, err := repo.Execute(t.Context(), "1", add(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := repo.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := mem.LoadSnapshot(t.Context(), tally1)
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Data) != want {
		t.Errorf("the snapshot is %s, an older release wrote %s", s.Data, want)
	}
}
