package es

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/tag"
)

// Mem is a [Log] in memory, with snapshots, leases and checkpoints, for tests and first steps. It is the reference
// implementation: except for durability it keeps every promise of its interfaces. Its zero value is ready to use.
type Mem struct {
	mu          sync.Mutex
	id          string
	records     []Record            // by position; append-only, so that readers need no lock for what they have seen
	streams     map[Stream][]Record // by version; append-only
	commands    map[command]span
	tagged      map[string][]Position // by tag, in order
	kinds       map[string]Position   // kinds whose events have tags; those up to this position may not have theirs yet
	snapshots   map[Stream]Snapshot
	redactions  map[Stream]Version // the last record that says that an event was redacted; a snapshot below it may have its content
	leases      map[string]memLease
	checkpoints map[string]Position
	changed     chan struct{} // closed by the next append; nil if there are no waiters
}

// memLease is a lease with the time of its end on the monotonic clock, which is not set back.
type memLease struct {
	Lease
	expires time.Time
}

// span is the versions of the events of a command.
type span struct{ first, last Version }

// Append implements [Store].
func (m *Mem) Append(ctx context.Context, appends ...Append) (_ Position, err error) {
	defer cause.Set(ctx, &err)
	if err := CheckAppends(appends...); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(appends); err != nil {
		return 0, err
	}
	return m.write(appends), nil
}

// check validates a whole call before anything is written.
func (m *Mem) check(appends []Append) error {
	heads := make(map[Stream]Version, len(appends))
	for _, a := range appends {
		if c, found := m.commands[command{a.Stream, a.Command}]; found {
			return &DuplicateError{a.Stream, a.Command, c.first, c.last}
		}
		head, earlier := heads[a.Stream]
		if !earlier {
			head = Version(len(m.streams[a.Stream]))
		}
		if err := m.checkCondition(&a); err != nil {
			return err
		}
		if a.Expected != AnyVersion && a.Expected != head {
			return &ConflictError{Stream: a.Stream, Expected: a.Expected}
		}
		heads[a.Stream] = head + Version(len(a.Events))
	}
	return m.checkTags(appends)
}

func (m *Mem) write(appends []Append) Position {
	if m.streams == nil {
		m.streams = make(map[Stream][]Record)
		m.commands = make(map[command]span)
	}
	m.noteKinds(appends)
	before := len(m.records)
	now := time.Now().UTC().Truncate(time.Microsecond)
	if before > 0 && now.Before(m.records[before-1].Time) {
		now = m.records[before-1].Time // the clock was set back; the time of a log never decreases
	}
	for _, a := range appends {
		stream := m.streams[a.Stream]
		first := Version(len(stream) + 1)
		for _, e := range a.Events {
			r := e.clone()
			r.Tags = tag.Set(r.Tags)
			r.Stream, r.Version, r.Position, r.Time = a.Stream, Version(len(stream)+1), Position(len(m.records)+1), now
			stream = append(stream, r)
			m.records = append(m.records, r)
			m.index(&r)
		}
		if len(a.Events) == 0 {
			continue
		}
		m.streams[a.Stream] = stream
		if a.Command != "" {
			m.commands[command{a.Stream, a.Command}] = span{first, Version(len(stream))}
		}
	}
	if len(m.records) == before {
		return 0
	}
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
	return Position(len(m.records))
}

// Read implements [Store].
func (m *Mem) Read(ctx context.Context, stream Stream, after Version) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if err := stream.Check(); err != nil {
			yield(Record{}, err)
			return
		}
		m.mu.Lock()
		records := m.streams[stream]
		m.mu.Unlock()
		records = records[min(max(after, 0), Version(len(records))):]
		each(ctx, len(records), func(i int) *Record { return &records[i] }, Filter{}, yield)
	}
}

// ID implements [Log].
func (m *Mem) ID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id == "" {
		m.id = rand.Text()
	}
	return m.id
}

// All implements [Log].
func (m *Mem) All(ctx context.Context, after Position, filter Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		m.mu.Lock()
		records := m.records
		err := m.tagsAdded(filter)
		after := min(max(after, 0), Position(len(records)))
		var tagged []Position
		if len(filter.Tags) > 0 {
			tagged = m.taggedAfter(filter, after)
		}
		m.mu.Unlock()
		if err != nil {
			yield(Record{}, err)
			return
		}
		if len(filter.Tags) > 0 {
			each(ctx, len(tagged), func(i int) *Record { return &records[tagged[i]-1] }, filter, yield)
			return
		}
		records = records[after:]
		each(ctx, len(records), func(i int) *Record { return &records[i] }, filter, yield)
	}
}

func each(ctx context.Context, n int, record func(i int) *Record, filter Filter, yield func(Record, error) bool) {
	if err := ctx.Err(); err != nil {
		yield(Record{}, cause.Of(ctx, err))
		return
	}
	for i := range n {
		if err := ctx.Err(); err != nil {
			yield(Record{}, cause.Of(ctx, err))
			return
		}
		if r := record(i); filter.Match(*r) && !yield(r.clone(), nil) {
			return
		}
	}
}

// Changed implements [Log].
func (m *Mem) Changed(ctx context.Context, after Position) (_ Position, err error) {
	defer cause.Set(ctx, &err)
	for {
		m.mu.Lock()
		head := Position(len(m.records))
		if m.changed == nil {
			m.changed = make(chan struct{})
		}
		changed := m.changed
		m.mu.Unlock()
		switch {
		case head > after:
			return head, ctx.Err()
		case head < after:
			return 0, fmt.Errorf("es: %w", &AheadError{after, head})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// SaveSnapshot implements [Snapshots].
func (m *Mem) SaveSnapshot(ctx context.Context, s Snapshot) (err error) {
	defer cause.Set(ctx, &err)
	if err := s.Stream.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.snapshots == nil {
		m.snapshots = make(map[Stream]Snapshot)
	}
	if audit, found := m.redactions[s.Stream]; found && s.Version < audit {
		return nil
	}
	if there, found := m.snapshots[s.Stream]; !found || !there.Newer(s) {
		s.Data = bytes.Clone(s.Data)
		m.snapshots[s.Stream] = s
	}
	return nil
}

// LoadSnapshot implements [Snapshots].
func (m *Mem) LoadSnapshot(ctx context.Context, stream Stream) (_ Snapshot, err error) {
	defer cause.Set(ctx, &err)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.snapshots[stream]
	s.Data = bytes.Clone(s.Data)
	return s, ctx.Err()
}

// AcquireLease implements [Leases].
func (m *Mem) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (_ Lease, err error) {
	defer cause.Set(ctx, &err)
	if err := CheckLease(name, holder, d, note); err != nil {
		return Lease{}, err
	}
	if err := ctx.Err(); err != nil {
		return Lease{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	l, found := m.leases[name]
	if !found || l.Holder == holder || !l.expires.After(now) {
		expires := now.Add(d)
		l = memLease{Lease{Name: name, Holder: holder, Until: expires.UTC().Truncate(time.Microsecond), Note: note}, expires}
		if m.leases == nil {
			m.leases = make(map[string]memLease)
		}
		m.leases[name] = l
	}
	return l.Lease, nil
}

// ReleaseLease implements [Leases].
func (m *Mem) ReleaseLease(ctx context.Context, name, holder string) (err error) {
	defer cause.Set(ctx, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[name].Holder == holder {
		delete(m.leases, name)
	}
	return nil
}

// ListLeases implements [Leases].
func (m *Mem) ListLeases(ctx context.Context) (_ []Lease, err error) {
	defer cause.Set(ctx, &err)
	m.mu.Lock()
	defer m.mu.Unlock()
	leases := make([]Lease, 0, len(m.leases))
	for _, name := range slices.Sorted(maps.Keys(m.leases)) {
		leases = append(leases, m.leases[name].Lease)
	}
	return leases, ctx.Err()
}

// LoadCheckpoint implements [Checkpoints].
func (m *Mem) LoadCheckpoint(ctx context.Context, name string) (_ Position, err error) {
	defer cause.Set(ctx, &err)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkpoints[name], ctx.Err()
}

// MoveCheckpoint implements [Checkpoints].
func (m *Mem) MoveCheckpoint(ctx context.Context, name string, from, to Position) (moved bool, err error) {
	defer cause.Set(ctx, &err)
	if err := CheckCheckpoint(name, from, to); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.checkpoints[name] != from {
		return false, nil
	}
	if m.checkpoints == nil {
		m.checkpoints = make(map[string]Position)
	}
	m.checkpoints[name] = to
	return true, nil
}

func (r Record) clone() Record {
	r.Data = bytes.Clone(r.Data)
	if len(r.Meta) == 0 {
		r.Meta = nil
	}
	r.Meta = maps.Clone(r.Meta)
	r.Tags = slices.Clone(r.Tags)
	return r
}
