package es

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/thalo-go/es/internal/step"
)

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
	step         string
	hasStep      bool
	expected     Version
	hasExpected  bool
	notAfter     time.Time // zero if the command has no deadline
	meta         map[string]string
}

// CommandID identifies the command. It is applied at most once per aggregate, from any process. A repeat returns the
// original result, with [Result.Repeated] set. Refused and no-op commands are not recorded: a repeat is decided again.
// An id has at most [MaxCommand] bytes.
func CommandID(id string) ExecuteOption {
	return func(s *settings) { s.commandID, s.hasCommandID = id, true }
}

// maxStep is the limit of bytes in the name of a step.
const maxStep = 128

// Step identifies a command that a reaction or a consumer runs. The command is applied at most once for this reaction, record and
// name of a step, however often the record is handled again. So two reactions to one record, or two steps of one reaction, do not take
// each other's commands for repetitions. Step also sets what [CausedBy] sets, and the metadata that the reaction carries.
// [Meta] beside it takes precedence.
//
// ctx must be the handler's, or one made of it. Without it, and beside a CommandID, Execute returns an error that wraps [ErrInvalid].
// A name has 1 to 128 bytes and no slash. A renamed step is a new step: its command may take effect again.
func Step(name string) ExecuteOption {
	return func(s *settings) { s.step, s.hasStep = name, true }
}

// resolveStep turns the step into a command id and metadata.
func (s *settings) resolveStep(ctx context.Context, stream Stream) error {
	if !s.hasStep {
		return nil
	}
	h := step.From(ctx)
	switch {
	case s.hasCommandID:
		return invalid("step %.80q for %s has a command id too: give one of them", s.step, stream)
	case h == nil:
		return invalid("step %.80q for %s: ctx is not that of a reaction's or consumer's handler: pass it on", s.step, stream)
	case badName(s.step, maxStep) != "":
		return invalid("step %.80q for %s %s", s.step, stream, badName(s.step, maxStep))
	case strings.Contains(s.step, "/"):
		return invalid("step %.80q for %s has a slash: give another name", s.step, stream)
	}
	id, ok := h.Command(s.step, stream.String())
	if !ok {
		return invalid("step %.80q is the second one on %s, and its old checkpoint has one id for both: Replay gives it identities", s.step, stream)
	}
	s.commandID, s.hasCommandID = id, true
	meta := causedBy(h.Record, h.Meta)
	for _, key := range h.Carry {
		if value, found := h.Meta[key]; found {
			meta[key] = value
		}
	}
	maps.Copy(meta, s.meta)
	s.meta = meta
	return nil
}

// NotAfter refuses the command with [ErrExpired] if the rules have not decided on it by t, by the clock of this process.
// A command with an id that has taken effect before returns its first outcome, also after t. The zero time is no limit.
func NotAfter(t time.Time) ExecuteOption {
	return func(s *settings) { s.notAfter = t }
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
func CausedBy(r Record) ExecuteOption { return Meta(causedBy(r.ID(), r.Meta)) }

func causedBy(id string, meta map[string]string) map[string]string {
	correlation := meta[MetaCorrelation]
	if correlation == "" {
		correlation = id
	}
	return map[string]string{MetaCorrelation: correlation, MetaCausation: id}
}
