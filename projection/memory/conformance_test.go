package memory_test

import (
	"context"
	"slices"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// lists returns the read models of the suite: a map, read with the transactions of a store.
func lists(s *memory.Store) conformance.Lists[*memory.Tx] {
	all := make(map[string][]string)
	return conformance.Lists[*memory.Tx]{
		Empty: func(_ context.Context, tx *memory.Tx, list string) error {
			memory.Delete(tx, all, list)
			return nil
		},
		Add: func(_ context.Context, tx *memory.Tx, list, line string) error {
			memory.Set(tx, all, list, append(slices.Clip(all[list]), line))
			return nil
		},
		Lines: func(ctx context.Context, list string) (lines []string, err error) {
			err = s.View(ctx, func() { lines = slices.Clone(all[list]) })
			return lines, err
		},
	}
}

func TestProjections(t *testing.T) {
	conformance.TestProjections(t, func(*testing.T) (func() conformance.ReadSide[*memory.Tx], conformance.Lists[*memory.Tx]) {
		first := memory.New(new(es.Mem))
		return func() conformance.ReadSide[*memory.Tx] { return first.Wrapped(defective) }, lists(first)
	})
}

func TestProjectionsOfOneStore(t *testing.T) {
	conformance.TestProjections(t, func(*testing.T) (func() conformance.ReadSide[*memory.Tx], conformance.Lists[*memory.Tx]) {
		s := memory.New(new(es.Mem))
		return func() conformance.ReadSide[*memory.Tx] { return s }, lists(s)
	})
}

// The log of a store is a source of projections in memory.
func TestSource(t *testing.T) {
	conformance.TestSource(t, func(*testing.T) conformance.SourceUnderTest[*memory.Tx] {
		log, s := new(es.Mem), memory.New(new(es.Mem))
		return conformance.SourceUnderTest[*memory.Tx]{
			Log:    log,
			Source: func() projection.Source { return projection.FromLog(log) },
			Side:   func() conformance.ReadSide[*memory.Tx] { return s.Another() },
			Lists:  lists(s),
		}
	})
}
