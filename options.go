package es

import "maps"

// Reserved keys of [Record.Meta].
const (
	MetaCorrelation = "correlation" // identity of what started a chain of causes
	MetaCausation   = "causation"   // Record.ID of the event that the command reacted to
)

// ExecuteOption is an option of one [Repo.Execute].
type ExecuteOption func(*settings)

type settings struct {
	commandID    string
	hasCommandID bool
	expected     Version
	hasExpected  bool
	meta         map[string]string
}

// CommandID identifies the command. It is applied at most once per aggregate, from any process. A repeat returns the
// original result, with [Result.Repeated] set. Refused and no-op commands are not recorded: a repeat is decided again.
// An id has at most [MaxCommand] bytes.
func CommandID(id string) ExecuteOption {
	return func(s *settings) { s.commandID, s.hasCommandID = id, true }
}

// ExpectVersion makes Execute fail with a [*ConflictError] unless the aggregate is at version v.
// The command is not retried. Use it when the caller decided on a version that a person has seen.
func ExpectVersion(v Version) ExecuteOption {
	return func(s *settings) { s.expected, s.hasExpected = v, true }
}

// Meta adds metadata to the events of the command. The last value of a key wins.
func Meta(meta map[string]string) ExecuteOption {
	return func(s *settings) {
		merged := make(map[string]string, len(s.meta)+len(meta))
		maps.Copy(merged, s.meta)
		maps.Copy(merged, meta)
		s.meta = merged
	}
}

// CausedBy records in the metadata that the command reacts to an event. The event's id becomes the causation.
// The event's correlation, or its id if it has none, becomes the correlation.
func CausedBy(r Record) ExecuteOption {
	correlation := r.Meta[MetaCorrelation]
	if correlation == "" {
		correlation = r.ID()
	}
	return Meta(map[string]string{MetaCorrelation: correlation, MetaCausation: r.ID()})
}
