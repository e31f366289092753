package sqlite_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/internal/tag"
)

// All stores of a clause use the same file, as other processes would.
func TestFile(t *testing.T) {
	conformance.TestLog(t, func(t *testing.T) func() es.Log {
		path := file(t)
		return func() es.Log { return open(t, path) }
	})
	conformance.TestConditions(t, func(t *testing.T) func() es.Log {
		path := file(t)
		return func() es.Log { return open(t, path) }
	})
	conformance.TestSnapshots(t, func(t *testing.T) func() es.Snapshots {
		path := file(t)
		return func() es.Snapshots { return open(t, path) }
	})
	conformance.TestRedaction(t, func(t *testing.T) func() conformance.Redactable {
		path := file(t)
		return func() conformance.Redactable { return open(t, path) }
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
	conformance.TestConditions(t, func(t *testing.T) func() es.Log {
		s := open(t, ":memory:")
		return func() es.Log { return s }
	})
	conformance.TestSnapshots(t, func(t *testing.T) func() es.Snapshots {
		s := open(t, ":memory:")
		return func() es.Snapshots { return s }
	})
	conformance.TestRedaction(t, func(t *testing.T) func() conformance.Redactable {
		s := open(t, ":memory:")
		return func() conformance.Redactable { return s }
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

// Every two tags have the same hash in every second case. Answers must be the same.
func TestCollisionsOfTags(t *testing.T) {
	conformance.TestConditions(t, func(t *testing.T) func() es.Log {
		path := file(t)
		return func() es.Log {
			s := open(t, path)
			s.SetHash(func(text string) int64 { return tag.Hash(text) & 1 })
			return s
		}
	})
}
