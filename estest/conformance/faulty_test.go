package conformance_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
)

// ended returns the error of a context that has ended, with its cause.
func ended(ctx context.Context) error { return cause.Of(ctx, ctx.Err()) }

type records = iter.Seq2[es.Record, error]

// faulty is an es.Mem with a defect in one method, or in every record that it returns.
type faulty struct {
	*es.Mem
	onAppend  func(ctx context.Context, appends []es.Append) (es.Position, error)
	onRead    func(ctx context.Context, stream es.Stream, after es.Version) records
	onAll     func(ctx context.Context, after es.Position, filter es.Filter) records
	onChanged func(ctx context.Context, after es.Position) (es.Position, error)
	onRecord  func(r es.Record) es.Record
}

func (f *faulty) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if f.onAppend != nil {
		return f.onAppend(ctx, appends)
	}
	return f.Mem.Append(ctx, appends...)
}

func (f *faulty) Read(ctx context.Context, stream es.Stream, after es.Version) records {
	if f.onRead != nil {
		return f.onRead(ctx, stream, after)
	}
	return changed(f.Mem.Read(ctx, stream, after), f.onRecord)
}

func (f *faulty) All(ctx context.Context, after es.Position, filter es.Filter) records {
	if f.onAll != nil {
		return f.onAll(ctx, after, filter)
	}
	return changed(f.Mem.All(ctx, after, filter), f.onRecord)
}

func (f *faulty) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	if f.onChanged != nil {
		return f.onChanged(ctx, after)
	}
	return f.Mem.Changed(ctx, after)
}

// appending, reading, listing, waiting and recording return a log with a stateless defect in Append, Read, All, Changed or its records.
func appending(do func(ctx context.Context, m *es.Mem, appends []es.Append) (es.Position, error)) func(*es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		return &faulty{Mem: m, onAppend: func(ctx context.Context, appends []es.Append) (es.Position, error) { return do(ctx, m, appends) }}
	}
}

func reading(do func(ctx context.Context, m *es.Mem, stream es.Stream, after es.Version) records) func(*es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		return &faulty{Mem: m, onRead: func(ctx context.Context, stream es.Stream, after es.Version) records {
			return do(ctx, m, stream, after)
		}}
	}
}

func listing(do func(ctx context.Context, m *es.Mem, after es.Position, filter es.Filter) records) func(*es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		return &faulty{Mem: m, onAll: func(ctx context.Context, after es.Position, filter es.Filter) records {
			return do(ctx, m, after, filter)
		}}
	}
}

func waiting(do func(ctx context.Context, m *es.Mem, after es.Position) (es.Position, error)) func(*es.Mem) *faulty {
	return func(m *es.Mem) *faulty {
		return &faulty{Mem: m, onChanged: func(ctx context.Context, after es.Position) (es.Position, error) { return do(ctx, m, after) }}
	}
}

func recording(change func(es.Record) es.Record) func(*es.Mem) *faulty {
	return func(m *es.Mem) *faulty { return &faulty{Mem: m, onRecord: change} }
}

// changed applies a function to the records of a sequence.
func changed(seq records, change func(es.Record) es.Record) records {
	if change == nil {
		return seq
	}
	return func(yield func(es.Record, error) bool) {
		for r, err := range seq {
			if err == nil {
				r = change(r)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// only removes the records for which keep returns false.
func only(seq records, keep func(es.Record) bool) records {
	return func(yield func(es.Record, error) bool) {
		for r, err := range seq {
			if (err != nil || keep(r)) && !yield(r, err) {
				return
			}
		}
	}
}

// window keeps a race open long enough for another goroutine to win it.
func window() { time.Sleep(200 * time.Microsecond) }

// head returns the version of a stream.
func head(m *es.Mem, stream es.Stream) es.Version {
	last := es.Version(0)
	for r, err := range m.Read(context.Background(), stream, 0) {
		if err != nil {
			panic(err)
		}
		last = max(last, r.Version)
	}
	return last
}

// wouldSucceed reports whether a call would succeed now, like a store that checks before it locks.
func wouldSucceed(m *es.Mem, appends []es.Append) bool {
	if es.CheckAppends(appends...) != nil {
		return false
	}
	heads := make(map[es.Stream]es.Version)
	for _, a := range appends {
		at, known := heads[a.Stream]
		if !known {
			at = head(m, a.Stream)
		}
		if a.Expected != es.AnyVersion && a.Expected != at || duplicate(m, a) != nil {
			return false
		}
		heads[a.Stream] = at + es.Version(len(a.Events))
	}
	return true
}

// duplicate returns the error for the command of an append, or nil if the command is not recorded.
func duplicate(m *es.Mem, a es.Append) *es.DuplicateError {
	_, err := m.Append(context.Background(), es.Append{Stream: a.Stream, Expected: es.AnyVersion, Command: a.Command})
	var recorded *es.DuplicateError
	errors.As(err, &recorded)
	return recorded
}

// atAnyVersion returns the appends at any version.
func atAnyVersion(appends []es.Append) []es.Append {
	appends = slices.Clone(appends)
	for i := range appends {
		appends[i].Expected = es.AnyVersion
	}
	return appends
}

// oneByOne writes the appends of a call separately until one is refused.
func oneByOne(ctx context.Context, m *es.Mem, appends []es.Append) (last es.Position, err error) {
	if err := errors.Join(es.CheckAppends(appends...), ended(ctx)); err != nil {
		return 0, err
	}
	for i, a := range appends {
		if i == 1 {
			window()
		}
		position, err := m.Append(context.WithoutCancel(ctx), a)
		if err != nil {
			return 0, err
		}
		last = max(last, position)
	}
	return last, nil
}

func isConflict(err error) bool {
	var conflict *es.ConflictError
	return errors.As(err, &conflict)
}

// table is a concurrent map for the state of faulty stores.
type table[V any] struct {
	mu   sync.Mutex
	rows map[string]V
}

func (t *table[V]) get(key string) (V, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, found := t.rows[key]
	return v, found
}

func (t *table[V]) put(key string, v V) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = make(map[string]V)
	}
	t.rows[key] = v
}
