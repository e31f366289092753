package es

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/redaction"
)

// Types of records that the store writes. Types that begin with "es." are reserved: no program can append them. Repos, Decisions and the
// helpers of package projection pass over these two without asking the codec, so that commands and read models go on.
const (
	// TypeRedacted is the type of a record whose content was erased. It has no data and no metadata, and kept its version, position, time
	// and tags.
	TypeRedacted = redaction.Redacted

	// TypeRedaction is the type of the record that Redact appends to the same stream. Its data is the JSON object {"version": 3, "reason":
	// "request 17"}, with the version that was erased. A read model that has a copy of the content can remove it then.
	TypeRedaction = redaction.Audit
)

// Redaction says what a call of Redact has changed, and which copies it cannot reach.
type Redaction struct {
	Audit    Version // of the record of type [TypeRedaction]
	Repeated bool    // the content had been erased before, and nothing was changed

	Snapshots int // snapshots of the stream that were removed
	Parked    int // parked records whose content was erased
	Timers    int // timers of the record; they have no content, so they stay, and their reactions get the redacted record

	Unreached []string // copies that the store cannot erase, such as backups, each with what to do about it
}

const maxReason = 1024 // bytes

// CheckRedaction reports what makes the arguments of a Redact method invalid, or nil. The error wraps [ErrInvalid].
// Implementations call it first.
func CheckRedaction(stream Stream, version Version, reason string) error {
	if err := stream.Check(); err != nil {
		return err
	}
	if version < 1 {
		return invalid("redact %s: version %d: the first version of a stream is 1", stream, version)
	}
	if bad := badName(reason, maxReason); bad != "" {
		return invalid("redact %s/%d: the reason %s", stream, version, bad)
	}
	return nil
}

// redactedError indicates that an event in a state was redacted after the state was made, or while it was read.
type redactedError struct {
	stream Stream
	audit  Version // of the record that says so; 0 if it was not read
}

func (e *redactedError) Error() string {
	return fmt.Sprintf("es: load %s: an event was redacted during the read: load it again", e.stream)
}

func isRedacted(err error) bool {
	var e *redactedError
	return errors.As(err, &e)
}

// rereader detects, while a stream is folded, that a state has content that was erased.
type rereader struct {
	begun    Version   // the fold began after this record was written, so what it says is true of all that was read
	redacted []Version // records that were read without their content
}

// check returns a redactedError if the record says that an earlier one was redacted, which this fold may have read with its content.
func (d *rereader) check(r *Record) error {
	switch r.Type {
	case TypeRedacted:
		d.redacted = append(d.redacted, r.Version)
	case TypeRedaction:
		if r.Version > d.begun && !slices.Contains(d.redacted, Version(redaction.Version(r.Data))) {
			return &redactedError{r.Stream, r.Version}
		}
	}
	return nil
}

// foldAll is fold from the beginning, again if an event was redacted during the read.
func (r *Repo[S, C, E]) foldAll(ctx context.Context, stream Stream, upTo Version) (state[S], error) {
	var redacted rereader
	for {
		at, err := r.fold(ctx, stream, state[S]{}, upTo, redacted, nil)
		var e *redactedError
		if !errors.As(err, &e) {
			return at, err
		}
		redacted.begun = e.audit
	}
}

// Redact erases the content of one event, as the stores of packages sqlite and postgres do: its type becomes [TypeRedacted], data and
// metadata are removed, and so is the snapshot of its stream. Version, position, time and tags stay. A record of type [TypeRedaction] with
// the reason is appended to the stream. Records that readers hold already are theirs,
// and so are those that a store of package projection/memory has parked.
func (m *Mem) Redact(ctx context.Context, stream Stream, version Version, reason string) (_ Redaction, err error) {
	defer cause.Set(ctx, &err)
	if err := CheckRedaction(stream, version, reason); err != nil {
		return Redaction{}, err
	}
	if err := ctx.Err(); err != nil {
		return Redaction{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	records := m.streams[stream]
	var r Record
	if head := Version(len(records)); version <= head {
		r = records[version-1]
	}
	if refusal := redaction.Refusal(int64(version), int64(len(records)), r.Type); refusal != "" {
		return Redaction{}, fmt.Errorf("es: %w: redact %s: %s", ErrInvalid, stream, refusal)
	}
	if r.Type == TypeRedacted {
		i := slices.IndexFunc(records, func(r Record) bool {
			return r.Type == TypeRedaction && Version(redaction.Version(r.Data)) == version
		})
		return Redaction{Audit: Version(i + 1), Repeated: true}, nil
	}
	r.Type, r.Data, r.Meta = TypeRedacted, nil, nil
	m.streams[stream] = slices.Clone(records) // readers hold the slice
	m.streams[stream][version-1] = r
	m.records = slices.Clone(m.records)
	m.records[r.Position-1] = r
	m.write([]Append{{Stream: stream, Events: []Record{{Type: TypeRedaction, Data: redaction.Data(int64(version), reason), Tags: r.Tags}}}})
	done := Redaction{Audit: Version(len(records) + 1)}
	if _, found := m.snapshots[stream]; found {
		delete(m.snapshots, stream)
		done.Snapshots = 1
	}
	if m.redactions == nil {
		m.redactions = make(map[Stream]Version)
	}
	m.redactions[stream] = done.Audit
	return done, nil
}
