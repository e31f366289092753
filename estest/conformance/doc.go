// Package conformance tests implementations of stores, sources and projections. Package estest beside it is for the tests
// of an application.
//
// Each suite tests one interface, with one subtest for each rule of it: [TestStore] for [es.Store], [TestLog] for [es.Log],
// [TestSnapshots] for [es.Snapshots], [TestLeases] for [es.Leases], [TestCheckpoints] for [es.Checkpoints], [TestProjections] for
// [projection.Projections], and [TestSource] for [projection.Source]. A failure names the broken rule and the consequence of breaking it.
//
// A suite needs a function that creates an empty database and returns a function that opens a store on it.
// See the example of [TestLog].
package conformance
