package sqlite_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

// All stores of a clause use the same file, as other processes would.
func TestFile(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T) func() es.Log {
		path := file(t)
		return func() es.Log { return open(t, path) }
	})
	conformance.TestSnapshots(t, func(t *testing.T) func() es.Snapshots {
		path := file(t)
		return func() es.Snapshots { return open(t, path) }
	})
	conformance.TestLeases(t, func(t *testing.T) func() es.Leases {
		path := file(t)
		return func() es.Leases { return open(t, path) }
	})
	conformance.TestCheckpoints(t, func(t *testing.T) func() es.Checkpoints {
		path := file(t)
		return func() es.Checkpoints { return open(t, path) }
	})
}

func TestMemory(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T) func() es.Log {
		s := open(t, ":memory:")
		return func() es.Log { return s }
	})
	conformance.TestSnapshots(t, func(t *testing.T) func() es.Snapshots {
		s := open(t, ":memory:")
		return func() es.Snapshots { return s }
	})
	conformance.TestLeases(t, func(t *testing.T) func() es.Leases {
		s := open(t, ":memory:")
		return func() es.Leases { return s }
	})
	conformance.TestCheckpoints(t, func(t *testing.T) func() es.Checkpoints {
		s := open(t, ":memory:")
		return func() es.Checkpoints { return s }
	})
}
