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
