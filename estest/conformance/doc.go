// Package conformance tests implementations of stores, sources and projections.
//
// [TestStore], [TestLog], [TestSnapshots], [TestLeases] and [TestCheckpoints] test a backend against each promise of the interface that it
// implements, one subtest a promise. A failure names the broken rule and its consequence. This is the whole test of a backend on files:
//
//	func TestLog(t *testing.T) {
//		conformance.TestLog(t, func(t *testing.T) func() es.Log {
//			path := filepath.Join(t.TempDir(), "test.db")
//			return func() es.Log { return open(t, path) } // registers Close with t.Cleanup
//		})
//	}
package conformance
