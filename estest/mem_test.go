package estest_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
)

func TestMem(t *testing.T) {
	estest.TestLog(t, func(*testing.T) func() es.Log {
		mem := new(es.Mem)
		return func() es.Log { return mem }
	})
}

func TestMemSnapshots(t *testing.T) {
	estest.TestSnapshots(t, func(*testing.T) func() es.Snapshots {
		mem := new(es.Mem)
		return func() es.Snapshots { return mem }
	})
}

func TestMemLeases(t *testing.T) {
	estest.TestLeases(t, func(*testing.T) func() es.Leases {
		mem := new(es.Mem)
		return func() es.Leases { return mem }
	})
}

func TestMemCheckpoints(t *testing.T) {
	estest.TestCheckpoints(t, func(*testing.T) func() es.Checkpoints {
		mem := new(es.Mem)
		return func() es.Checkpoints { return mem }
	})
}
