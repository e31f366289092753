package postgres

import (
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

// heads is what the store knows to be in the database, because it has read or written it itself: of each stream last used, a version
// that it has reached. History only grows, so a stream can be further on but not behind, and that the unique key finds.
//
// What could make it untrue is a database that has lost its end: a failover to a replica that was behind, a restore of an older copy.
// Hence the fingerprint: the highest position known and the token that stands there go along with every batch, and the server
// compares. Positions are dense and in commit order, so if that one record is the same, so is everything below it.
// So all that is known must be of the history of which the fingerprint is: what a read has seen counts only if the fingerprint
// was there in the same snapshot. Otherwise a store that reads before it appends would take a new history for the one it knows.
type heads struct {
	mu       sync.Mutex
	versions *simplelru.LRU[es.Stream, es.Version]
	position es.Position // of the fingerprint
	token    int64
	epoch    int  // counts the times that history was not what it had been
	rewound  bool // it was, at least once: versions that are not known are taken for lost until they have been read

	// told has the streams of which somebody was told, or has written, since history was rewound. What is read here may be read by
	// another than who appends, so the first to expect a version of a stream is told in any case, and reads again.
	told *simplelru.LRU[es.Stream, struct{}]
}

const knownHeads = 1 << 16 // streams

func (h *heads) init() {
	h.versions, _ = simplelru.NewLRU[es.Stream, es.Version](knownHeads, nil) // fails for a size below 1 only
	h.told, _ = simplelru.NewLRU[es.Stream, struct{}](knownHeads, nil)
}

// lost tells whether an append, to a stream known to have reached a version, may expect one of a history that is no more.
func (h *heads) lost(a *es.Append, reached es.Version) bool {
	return h.rewound && a.Expected > 0 && (reached < a.Expected || !h.told.Contains(a.Stream))
}

// tell notes who has been told by the verdicts of requests.
func (h *heads) tell(requests []*commit.Request) {
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
			h.told.Add(r.Appends[i].Stream, struct{}{})
		}
	}
}

// knows returns a version that the stream has reached; 0 if nothing is known.
func (h *heads) knows(stream es.Stream) es.Version {
	v, _ := h.versions.Get(stream)
	return v
}

// learn notes that a stream has reached a version.
func (h *heads) learn(stream es.Stream, version es.Version) {
	if version > h.knows(stream) {
		h.versions.Add(stream, version)
	}
}

// start sets the fingerprint of a store that knows nothing yet.
func (h *heads) start(position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.position, h.token = position, token
}

// forget drops everything, because the fingerprint was not found, and takes a new one.
func (h *heads) forget(position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions.Purge()
	h.told.Purge()
	h.position, h.token = position, token
	h.epoch++
	h.rewound = true
}

func (h *heads) fingerprint() (es.Position, int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position, h.token
}

// A mark is the fingerprint with which a read began.
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

// read notes what a read has seen: the last record of a stream, and the token that stands with it. The fingerprint of the mark was there.
func (h *heads) read(m mark, stream es.Stream, version es.Version, position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case m.epoch != h.epoch:
		return
	case position <= m.position: // the fingerprint of the mark vouches for it, and that of now for the one of the mark
	case m.position == h.position:
		h.position, h.token = position, token
	default:
		return // others wrote it a moment ago, and nothing says that it is of the same history as what the store has written meanwhile
	}
	h.learn(stream, version)
}
