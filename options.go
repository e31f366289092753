package es

import "maps"

// Keys of [Record.Meta] that the toolkit sets and reads.
const (
	MetaCorrelation = "correlation" // the identity of what began it all; the same along a chain of causes
	MetaCausation   = "causation"   // Record.ID of the event to which the command reacted
)

// An ExecuteOption is an option of one [Repo.Execute].
type ExecuteOption func(*settings)

type settings struct {
	commandID    string
	hasCommandID bool
	expected     Version
	hasExpected  bool
	meta         map[string]string
}

// CommandID gives the command an identity: on its aggregate it takes effect at most once, however often and from wherever it is sent.
// The second time, Execute returns what it returned the first time. A command that was refused or had nothing to do took no effect:
// sent again, it is decided anew. An id has at most [MaxCommand] bytes.
func CommandID(id string) ExecuteOption {
	return func(s *settings) { s.commandID, s.hasCommandID = id, true }
}

// ExpectVersion lets the command be decided on that version of the aggregate alone, the one that a person looked at, say.
// If the aggregate has moved on, Execute returns a [*ConflictError] and does not retry.
func ExpectVersion(v Version) ExecuteOption {
	return func(s *settings) { s.expected, s.hasExpected = v, true }
}

// Meta adds metadata to the events of the command. Keys given twice have the last value.
func Meta(meta map[string]string) ExecuteOption {
	return func(s *settings) {
		merged := make(map[string]string, len(s.meta)+len(meta))
		maps.Copy(merged, s.meta)
		maps.Copy(merged, meta)
		s.meta = merged
	}
}

// CausedBy notes in the metadata that the command reacts to an event: its id as causation, and its correlation,
// or its id if it has none, as correlation.
func CausedBy(r Record) ExecuteOption {
	correlation := r.Meta[MetaCorrelation]
	if correlation == "" {
		correlation = r.ID()
	}
	return Meta(map[string]string{MetaCorrelation: correlation, MetaCausation: r.ID()})
}
