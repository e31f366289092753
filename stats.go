package es

// Stats are the counters of a store since it was opened. They are those of this process: a database that several processes use has
// the sum of theirs.
type Stats struct {
	Appends    int64 // calls of Append that have returned, including those below
	Events     int64 // events written
	Conflicts  int64 // calls with a ConflictError
	Duplicates int64 // calls with a DuplicateError
	Refused    int64 // calls whose input is invalid, or that an inline projection refused
	Unknown    int64 // calls with an unknown outcome
	Failed     int64 // calls with another error, such as that of the context, or of a database that is not available
	Batches    int64 // transactions that appends have shared
	Waiting    int   // calls that wait for a transaction now

	Append    Histogram // seconds from a call to its return, of all Appends
	Batch     Histogram // seconds of a transaction, from the moment that its appends are known
	BatchSize Histogram // values of type Append in a transaction
}

// RepoStats are the counters of a [Repo] or [Decisions] since it was made.
type RepoStats struct {
	Commands    int64 // commands that got an outcome or an error from a round, including those below
	Refused     int64 // commands that the rules refused
	Repeated    int64 // commands that had taken effect before
	Retries     int64 // attempts after a conflict
	CacheHits   int64 // rounds that began with a cached state
	CacheMisses int64 // rounds that read their state from the store

	Execute Histogram // seconds from a call to its outcome, of all Commands
}

// Histogram counts values in buckets.
type Histogram struct {
	Bounds []float64 // upper ends of the buckets but for the last, which has none; a value equal to a bound is below it
	Counts []int64   // of each bucket: one more than bounds
	Sum    float64   // of all values
}

// Count returns the number of values.
func (h Histogram) Count() (n int64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}
