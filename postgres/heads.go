package postgres

import (
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
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
	epoch    int  // the number of rewinds
	rewound  bool // epoch > 0: versions above the cached one are assumed lost until they were read

	// reported is the set of streams written, or reported as conflicting, since the rewind. A read may come from a different caller than
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
	return h.rewound && a.Expected > 0 && (reached < a.Expected || !h.reported.Contains(a.Stream))
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
			h.reported.Add(r.Appends[i].Stream, struct{}{})
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
	h.position, h.token = position, token
}

// rewind drops everything, because the fingerprint was not found, and sets a new one.
func (h *heads) rewind(position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions.Purge()
	h.reported.Purge()
	h.position, h.token = position, token
	h.epoch++
	h.rewound = true
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
		h.position, h.token = position, token
	default:
		return // another writer's record, which may belong to another history than what this store has written since the mark
	}
	h.learn(stream, version)
}
