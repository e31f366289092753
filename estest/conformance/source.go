package conformance

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// SourceUnderTest is a source, the log its records come from, and a database for read models.
type SourceUnderTest[Tx any] struct {
	// Log is the log that the suite appends to. Its records must arrive in the source, for example through a relay.
	Log es.Log

	// Source opens the source. Each call returns another one, as another process would have it.
	Source func() projection.Source

	// Side opens a store on the database of the read models, as in [TestProjections].
	Side func() ReadSide[Tx]

	// Lists are the read models in that database, as in [TestProjections].
	Lists Lists[Tx]
}

// TestSource tests an implementation of [projection.Source] and [projection.Feed], on its own and with read models that are fed from it.
// For each clause it calls fresh, which creates an empty log, a source that nothing has been read from, and an empty database.
//
// TestSource is for sources that are not logs, such as topics; [TestProjections] tests a backend with logs as sources.
// It cannot test that a source survives failures of its servers, nor that it reports records that its servers have lost.
func TestSource[Tx any](t *testing.T, fresh func(t *testing.T) SourceUnderTest[Tx]) {
	t.Helper()
	test(t, sourceClauses(), func(t *testing.T) *trial { return sourceTrial(fresh(t)) })
}

func sourceTrial[Tx any](f SourceUnderTest[Tx]) *trial {
	t := projectionTrial(f.Side, f.Lists)
	t.log, t.source = func() es.Log { return f.Log }, f.Source
	return t
}

func sourceClauses() []clause {
	return endingRuns([]clause{
		{"feeds return every record once and each stream in order",
			"A reader of all shards has read the whole log, with each stream in one shard and rising cursors. Otherwise records are lost or applied out of order.",
			feedsAll},
		{"feed starts after its cursor",
			"A worker that takes over starts at the checkpoint. One record too few is missing from the read model permanently, and one too many is applied twice.",
			feedsFrom},
		{"feed returns what its filter matches and passes the rest",
			"The cursor moves past records that the filter excludes. Otherwise they are read again after every start.",
			feedsFiltered},
		{"feed at the end reports it and then waits",
			"The reader of an empty shard must learn that it has caught up. A waiting feed ends with its context.",
			feedsEnd},
		{"cursor beyond the end is refused",
			"The source has lost its last records and will reuse their cursors for others. The error wraps *es.AheadError; otherwise new records are skipped.",
			feedsAhead},
		{"ID and shards are stable",
			"A checkpoint is valid only for the source and shard it was made for. If they change, Project refuses the checkpoint.",
			sourceIsSame},
		{"read model survives restarts and failures",
			"The checkpoint moves in the transaction of the read model, and every run starts after it. Otherwise records are lost or applied twice.",
			feedsModel},
		{"two workers divide the source",
			"Each shard is fed to one worker, and when it ends the other continues after its checkpoint. Otherwise records are applied twice or not at all.",
			feedsWorkers},
		{"read model catches up with an empty source",
			"A program that waits for its read model would otherwise not start before the first record.",
			feedsNothing},
		{"failing record is isolated and parked",
			"A batch is divided by the cursors of its records. If the cursors are wrong, records before the failing one are lost or applied twice.",
			feedsParked},
		{"rebuilt read model starts from the beginning",
			"The source still has all its records and returns them in the same order. Otherwise a rebuild loses data.",
			feedsAnew},
		{"reaction gets every record and resumes at its checkpoint",
			"Other parts of the program wait for the commands that a reaction executes. A skipped record means a command that is never executed.",
			feedsReaction},
	})
}
