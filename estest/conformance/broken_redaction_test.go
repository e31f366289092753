package conformance_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

// faultyRedaction is an es.Mem with a defect that shows when events are redacted.
type faultyRedaction struct {
	*faulty
	onRedact redacting
	onSave   saving
	onLoad   fetching
}

type redacting func(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error)

func (f *faultyRedaction) Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
	if f.onRedact != nil {
		return f.onRedact(ctx, stream, version, reason)
	}
	return f.Mem.Redact(ctx, stream, version, reason)
}

func (f *faultyRedaction) SaveSnapshot(ctx context.Context, s es.Snapshot) error {
	if f.onSave != nil {
		return f.onSave(ctx, s)
	}
	return f.Mem.SaveSnapshot(ctx, s)
}

func (f *faultyRedaction) LoadSnapshot(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
	if f.onLoad != nil {
		return f.onLoad(ctx, stream)
	}
	return f.Mem.LoadSnapshot(ctx, stream)
}

const (
	keepsPlace      = "a redacted record keeps its place and loses its content"
	isRecorded      = "a redaction is a record of its stream"
	removesSnapshot = "a redaction removes the snapshot of the stream, and an older one does not come back"
	savedDuring     = "a snapshot that is saved during a redaction does not stay"
	knowsCommand    = "the command of a redacted event stays known"
	redactsOnce     = "a second redaction changes nothing"
	refusesOthers   = "what cannot be redacted is refused"
	redactsInOrder  = "redactions and appends at once keep the order of the log"
	redactContext   = "a redaction obeys the context"
)

func brokenRedaction(name, clause string, store func(m *es.Mem, f *faultyRedaction)) defect[conformance.Redactable] {
	return defect[conformance.Redactable]{name: name, clause: clause, database: func() func() conformance.Redactable {
		m := new(es.Mem)
		f := &faultyRedaction{faulty: &faulty{Mem: m}}
		store(m, f)
		return func() conformance.Redactable { return f }
	}}
}

// shown changes the records that are read.
func shown(change func(r es.Record) es.Record) func(m *es.Mem, f *faultyRedaction) {
	return func(_ *es.Mem, f *faultyRedaction) { f.onRecord = change }
}

// redacts changes how events are redacted.
func redacts(do func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error)) func(m *es.Mem, f *faultyRedaction) {
	return func(m *es.Mem, f *faultyRedaction) {
		f.onRedact = func(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			return do(ctx, m, stream, version, reason)
		}
	}
}

func brokenRedactions() []defect[conformance.Redactable] {
	return []defect[conformance.Redactable]{
		brokenRedaction("metadata stays", keepsPlace, shown(func(r es.Record) es.Record {
			if r.Type == es.TypeRedacted {
				r.Meta = map[string]string{"user": "Ann"}
			}
			return r
		})),
		brokenRedaction("tags are removed", keepsPlace, func(_ *es.Mem, f *faultyRedaction) {
			f.onRecord = func(r es.Record) es.Record {
				if r.Type == es.TypeRedacted {
					r.Tags = nil
				}
				return r
			}
		}),
		brokenRedaction("the time is that of the redaction", keepsPlace, shown(func(r es.Record) es.Record {
			if r.Type == es.TypeRedacted {
				r.Time = r.Time.Add(1)
			}
			return r
		})),
		brokenRedaction("the record has no tags", isRecorded, shown(func(r es.Record) es.Record {
			if r.Type == es.TypeRedaction {
				r.Tags = nil
			}
			return r
		})),
		brokenRedaction("the reason is lost", isRecorded, redacts(func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			if reason == "request 17" {
				reason = "?"
			}
			return m.Redact(ctx, stream, version, reason)
		})),
		brokenRedaction("snapshots are kept", removesSnapshot, redacts(func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			before, err := m.LoadSnapshot(ctx, stream)
			if err != nil {
				return es.Redaction{}, err
			}
			done, err := m.Redact(ctx, stream, version, reason)
			if before.Version > 0 && err == nil {
				before.Version = 1 << 40 // which the Mem accepts
				err = m.SaveSnapshot(ctx, before)
			}
			return done, err
		})).noticedBy(savedDuring),
		brokenRedaction("older snapshots are saved afterwards", removesSnapshot, func(m *es.Mem, f *faultyRedaction) {
			f.onSave = func(ctx context.Context, s es.Snapshot) error {
				if there, err := m.LoadSnapshot(ctx, s.Stream); err == nil && there.Version == 0 {
					s.Version += 10 // past the record of the redaction
				}
				return m.SaveSnapshot(ctx, s)
			}
		}).noticedBy(savedDuring),
		brokenRedaction("redactions are looked for before the lock", savedDuring, func(m *es.Mem, f *faultyRedaction) {
			var kept table[es.Snapshot]
			var audits table[es.Version]
			f.onSave = func(ctx context.Context, s es.Snapshot) error {
				name := s.Stream.String()
				old, found := kept.get(name)
				if audit, redacted := audits.get(name); redacted && s.Version < audit || found && old.Newer(s) {
					return ended(ctx)
				}
				window()
				kept.put(name, s)
				return ended(ctx)
			}
			f.onLoad = func(ctx context.Context, stream es.Stream) (es.Snapshot, error) {
				s, _ := kept.get(stream.String())
				return s, ended(ctx)
			}
			f.onRedact = func(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
				done, err := m.Redact(ctx, stream, version, reason)
				if err == nil && !done.Repeated {
					audits.put(stream.String(), done.Audit)
					if old, _ := kept.get(stream.String()); old.Version > 0 {
						kept.put(stream.String(), es.Snapshot{})
						done.Snapshots = 1
					}
				}
				return done, err
			}
		}),
		brokenRedaction("commands are forgotten", knowsCommand, func(m *es.Mem, f *faultyRedaction) {
			var redacted sync.Map
			f.onRedact = func(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
				redacted.Store(stream, true)
				return m.Redact(ctx, stream, version, reason)
			}
			f.onAppend = func(ctx context.Context, appends []es.Append) (es.Position, error) {
				for i := range appends {
					if _, found := redacted.Load(appends[i].Stream); found {
						appends = slices.Clone(appends)
						appends[i].Command = ""
					}
				}
				return m.Append(ctx, appends...)
			}
		}),
		brokenRedaction("the second redaction does not say so", redactsOnce, redacts(func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			done, err := m.Redact(ctx, stream, version, reason)
			done.Repeated = false
			return done, err
		})).noticedBy(redactsInOrder),
		brokenRedaction("the second redaction names no record", redactsOnce, redacts(func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			done, err := m.Redact(ctx, stream, version, reason)
			if done.Repeated {
				done.Audit = 0
			}
			return done, err
		})),
		brokenRedaction("a missing record is redacted", refusesOthers, redacts(func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			done, err := m.Redact(ctx, stream, version, reason)
			if err != nil && ctx.Err() == nil {
				err = nil
			}
			return done, err
		})),
		brokenRedaction("positions of records at once are swapped", redactsInOrder, func(_ *es.Mem, f *faultyRedaction) {
			f.onRecord = func(r es.Record) es.Record {
				if r.Type == es.TypeRedaction && r.Version > 10 {
					r.Position++
				}
				return r
			}
		}),
		brokenRedaction("the context is ignored", redactContext, redacts(func(ctx context.Context, m *es.Mem, stream es.Stream, version es.Version, reason string) (es.Redaction, error) {
			return m.Redact(context.WithoutCancel(ctx), stream, version, reason)
		})),
	}
}

func TestEveryDefectOfRedactionsIsCaughtByItsClause(t *testing.T) {
	catch(t, brokenRedactions(), conformance.RedactionClauses(), conformance.Clause.TryRedaction)
}
