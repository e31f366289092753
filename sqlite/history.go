package sqlite

import (
	"context"
	"database/sql/driver"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/seen"
)

// mark identifies a record and, because positions are dense and in commit order, the history up to it. The zero mark is the beginning.
type mark struct {
	position es.Position
	time     int64 // microseconds since 1970
	stream   es.Stream
	version  es.Version
}

func markOf(r *es.Record) mark { return mark{r.Position, r.Time.UnixMicro(), r.Stream, r.Version} }

func (m mark) args() []driver.Value {
	return []driver.Value{int64(m.position), m.time, m.stream.Kind, m.stream.ID, int64(m.version)}
}

// history detects that the log has lost its end, because an older copy was restored into the file while the store has it open.
//
// It keeps marks of records that this store has written or read. If the highest one is no longer in the log, the log was rewound. Everything
// up to the highest mark that still is there belongs to both histories. What callers know of later records may be of the lost history,
// even if the new one has reached the same versions.
type history struct {
	mu      sync.Mutex
	marks   []mark        // with ascending positions, the older the sparser
	rewinds int           // the number of times that the log was rewound
	common  []es.Position // for each rewind, the position up to which no record was lost

	// seen knows the streams of which a caller may know a lost version. Appends to other streams are as before the rewind.
	seen seen.Streams

	// reported is the set of streams written, or reported as conflicting, since the rewind. A caller may have read another suspect stream
	// before it, so the first append to each fails, which forces a reload.
	reported *simplelru.LRU[es.Stream, struct{}]
}

const maxMarks = 64

// A view is the highest mark of a history, and the number of rewinds at which it is valid.
type view struct {
	top     mark
	rewinds int
}

func (h *history) view() view {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.viewLocked()
}

func (h *history) viewLocked() view {
	v := view{rewinds: h.rewinds}
	if n := len(h.marks); n > 0 {
		v.top = h.marks[n-1]
	}
	return v
}

// saw adds the mark of a record of the same history as the view, unless a higher one is known.
func (h *history) saw(v view, m mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.viewLocked(); v.rewinds != now.rewinds || m.position <= now.top.position {
		return
	}
	if len(h.marks) == maxMarks {
		const old = maxMarks * 3 / 4
		for i := range old / 2 {
			h.marks[i] = h.marks[2*i+1]
		}
		h.marks = slices.Delete(h.marks, old/2, old)
	}
	h.marks = append(h.marks, m)
}

// rewind notes that the top of a view was not in the log, whose last record is now at end. has reports whether the log has a mark.
// It returns the view of the new history.
func (h *history) rewind(v view, end mark, has func(mark) (bool, error)) (view, error) {
	h.mu.Lock()
	marks := slices.Clone(h.marks)
	h.mu.Unlock()
	for len(marks) > 0 {
		if found, err := has(marks[len(marks)-1]); err != nil {
			return v, err
		} else if found {
			break
		}
		marks = marks[:len(marks)-1]
	}
	common := es.Position(0)
	if n := len(marks); n > 0 {
		common = marks[n-1].position
	}
	if end.position > common {
		marks = append(marks, end)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rewinds != v.rewinds {
		return h.viewLocked(), nil // another goroutine was faster
	}
	h.rewinds++
	h.common = append(h.common, common)
	h.marks = marks
	h.seen.Rewound(common)
	h.reported, _ = simplelru.NewLRU[es.Stream, struct{}](knownHeads, nil) // returns an error only for a size below 1
	return h.viewLocked(), nil
}

// rewound reports whether the log was rewound after the first so many times, and up to which position no record was lost.
func (h *history) rewound(since int) (common es.Position, rewound bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if since >= h.rewinds {
		return 0, false
	}
	return slices.Min(h.common[since:]), true
}

// report notes that a stream was written or reported as conflicting. It returns false if that is known.
func (h *history) report(stream es.Stream) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reported == nil || h.reported.Contains(stream) {
		return false
	}
	h.reported.Add(stream, struct{}{})
	return true
}

const (
	hasMark     = "exists (select 1 from es_events where position = ?1 and time = ?2 and kind = ?3 and id = ?4 and version = ?5)"
	selectMark  = "select " + hasMark
	selectMarks = selectMark + ", exists (select 1 from es_events where position = ?6 and time = ?7 and kind = ?8 and id = ?9 and version = ?10)"
	selectTop   = "select position, time, kind, id, version, " + hasMark + " from es_events order by position desc limit 1"
)

// observe adds the mark of a record that was read. Without it, a caller that read the record before the log was rewound could append
// after another record at the same version.
func (s *Store) observe(ctx context.Context, r *es.Record) error {
	v := s.history.view()
	if r.Position <= v.top.position {
		return nil // appends compare the top
	}
	m := markOf(r)
	var same, there bool
	args := append(v.top.args(), m.args()...)
	if err := s.row(ctx, selectMarks, anys(args), &same, &there); err != nil {
		return err
	}
	if (same || v.top == mark{}) && there {
		s.history.saw(v, m)
	}
	return nil // otherwise the next append or call of Changed finds out
}

func anys(values []driver.Value) []any {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return args
}
