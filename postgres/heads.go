package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
	"github.com/thalo-go/es/internal/seen"
)

// heads caches a version of each recently used stream that the stream has reached. Streams only grow, so a cached version may be too
// low but never too high; the unique key detects the first.
//
// The exception is a database that has lost its end, by a failover to a replica that was behind or a restore of an older copy. The
// fingerprint detects this: each batch carries the highest known position and the token of its record, and the server compares them.
// Positions are dense and in commit order, so if that record is the same, everything below it is.
//
// Everything cached must therefore belong to the fingerprint's history. A read counts only if the fingerprint was in its snapshot.
// Otherwise a store that reads before it appends would mistake a new history for the one it knows.
type heads struct {
	mu       sync.Mutex
	versions *simplelru.LRU[es.Stream, es.Version]
	position es.Position // of the fingerprint
	token    int64
	epoch    int           // the number of rewinds
	rewound  bool          // epoch > 0: versions of suspect streams above the cached one are assumed lost until they were read
	marks    []fingerprint // earlier fingerprints, with ascending positions, the older the sparser

	// seen knows the streams of which a caller may know a lost version. Appends to other streams are as before the rewind.
	seen seen.Streams

	// reported is the set of suspect streams written, or reported as conflicting, since the rewind. A read may come from a different caller than
	// the append, so the first append to each stream fails once regardless, which forces a reload.
	reported *simplelru.LRU[es.Stream, struct{}]
}

const knownHeads = 1 << 16 // streams

func (h *heads) init() {
	h.versions, _ = simplelru.NewLRU[es.Stream, es.Version](knownHeads, nil) // fails only for a size below 1
	h.reported, _ = simplelru.NewLRU[es.Stream, struct{}](knownHeads, nil)
}

// isLost reports whether an append to a stream that has reached a version may expect a version of a lost history.
func (h *heads) isLost(a *es.Append, reached es.Version) bool {
	return h.rewound && a.Expected > 0 && h.seen.Suspect(a.Stream) && (reached < a.Expected || !h.reported.Contains(a.Stream))
}

// report notes the streams of requests that were written or reported as rewound.
func (h *heads) report(requests []*commit.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.rewound {
		return
	}
	for _, r := range requests {
		if r.Err != nil && !errors.Is(r.Err, es.ErrRewound) {
			continue
		}
		for i := range r.Appends {
			if h.seen.Suspect(r.Appends[i].Stream) {
				h.reported.Add(r.Appends[i].Stream, struct{}{})
			}
		}
	}
}

// version returns a version that the stream has reached, or 0 if none is known.
func (h *heads) version(stream es.Stream) es.Version {
	v, _ := h.versions.Get(stream)
	return v
}

// learn notes that a stream has reached a version.
func (h *heads) learn(stream es.Stream, version es.Version) {
	if version > h.version(stream) {
		h.versions.Add(stream, version)
	}
}

// start sets the first fingerprint.
func (h *heads) start(position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen.Reach(position)
	h.setTop(position, token)
}

// fingerprint identifies a record, and with it the history up to it.
type fingerprint struct {
	position es.Position
	token    int64
}

const mostMarks = 64

// setTop sets the fingerprint.
func (h *heads) setTop(position es.Position, token int64) {
	if h.position, h.token = position, token; position == 0 {
		return
	}
	if len(h.marks) == mostMarks {
		const old = mostMarks * 3 / 4
		for i := range old / 2 {
			h.marks[i] = h.marks[2*i+1]
		}
		h.marks = slices.Delete(h.marks, old/2, old)
	}
	h.marks = append(h.marks, fingerprint{position, token})
}

// rewind drops everything after a position, because the fingerprint was not found, and sets a new one.
func (h *heads) rewind(common es.Position, position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions.Purge()
	h.reported.Purge()
	h.marks = slices.DeleteFunc(h.marks, func(m fingerprint) bool { return m.position > common })
	h.setTop(position, token)
	h.seen.Rewound(common)
	h.epoch++
	h.rewound = true
}

// allMarks returns the marks.
func (h *heads) allMarks() []fingerprint {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.marks)
}

// common returns the position up to which the log surely has lost no record.
func (s *Store) common(ctx context.Context, conn *pgx.Conn) (position es.Position, err error) {
	marks := s.heads.allMarks()
	var positions, tokens array
	positions.reset(oidInt8)
	tokens.reset(oidInt8)
	for _, m := range marks {
		positions.int8(int64(m.position))
		tokens.int8(m.token)
	}
	has := make(map[fingerprint]bool)
	err = s.each(ctx, conn, s.statements.marks, [][]byte{positions.param(), tokens.param()}, func(row [][]byte) error {
		has[fingerprint{es.Position(getInt8(row[0])), getInt8(row[1])}] = true
		return nil
	})
	for _, m := range marks {
		if !has[m] {
			break
		}
		position = m.position
	}
	return position, err
}

// note notes that callers know the streams of appends, which end at a position.
func (h *heads) note(epoch int, appends []es.Append, end es.Position) {
	for _, a := range slices.Backward(appends) {
		if len(a.Events) > 0 {
			h.seen.Note(epoch, end, a.Stream)
			end -= es.Position(len(a.Events))
		}
	}
}

// A mark is the fingerprint at the start of a read.
type mark struct {
	position es.Position
	token    int64
	epoch    int
}

func (h *heads) mark() mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	return mark{h.position, h.token, h.epoch}
}

// read notes the last record of a stream and its token, as a read saw them whose snapshot had the mark.
func (h *heads) read(m mark, stream es.Stream, version es.Version, position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case m.epoch != h.epoch:
		return
	case position <= m.position: // the mark covers it, and the current fingerprint covers the mark
	case m.position == h.position:
		h.setTop(position, token)
	default:
		return // another writer's record, which may belong to another history than what this store has written since the mark
	}
	h.learn(stream, version)
}
