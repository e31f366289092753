package conformance_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

func TestMem(t *testing.T) {
	conformance.TestLog(t, func(*testing.T) func() es.Log {
		mem := new(es.Mem)
		return func() es.Log { return mem }
	})
}

func TestMemConditions(t *testing.T) {
	conformance.TestConditions(t, func(*testing.T) func() es.Log {
		mem := new(es.Mem)
		return func() es.Log { return mem }
	})
}

func TestMemSnapshots(t *testing.T) {
	conformance.TestSnapshots(t, func(*testing.T) func() es.Snapshots {
		mem := new(es.Mem)
		return func() es.Snapshots { return mem }
	})
}

func TestMemRedaction(t *testing.T) {
	conformance.TestRedaction(t, func(*testing.T) func() conformance.Redactable {
		mem := new(es.Mem)
		return func() conformance.Redactable { return mem }
	})
}

func TestMemLeases(t *testing.T) {
	conformance.TestLeases(t, func(*testing.T) func() es.Leases {
		mem := new(es.Mem)
		return func() es.Leases { return mem }
	})
}

func TestMemCheckpoints(t *testing.T) {
	conformance.TestCheckpoints(t, func(*testing.T) func() es.Checkpoints {
		mem := new(es.Mem)
		return func() es.Checkpoints { return mem }
	})
}
