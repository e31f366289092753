package postgres

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/thalo-go/es"
)

// heads is what the store knows to be in the database, because it has read or written it itself: of each stream last used, a version
// that it has reached. History only grows, so a stream can be further on but not behind, and that the unique key finds.
//
// What could make it untrue is a database that has lost its end: a failover to a replica that was behind, a restore of an older copy.
// Hence the fingerprint: the highest position known and the token that stands there go along with every batch, and the server
// compares. Positions are dense and in commit order, so if that one record is the same, so is everything below it.
type heads struct {
	mu       sync.Mutex
	versions *simplelru.LRU[es.Stream, es.Version]
	position es.Position // of the fingerprint
	token    int64
	epoch    int  // counts the times that history was not what it had been
	rewound  bool // it was, at least once: versions that are not known are taken for lost until they have been read
}

const knownHeads = 1 << 16 // streams

func (h *heads) init() {
	h.versions, _ = simplelru.NewLRU[es.Stream, es.Version](knownHeads, nil) // fails for a size below 1 only
}

// knows returns a version that the stream has reached; 0 if nothing is known.
func (h *heads) knows(stream es.Stream) es.Version {
	v, _ := h.versions.Get(stream)
	return v
}

// learn notes that a stream has reached a version, unless that was read in another epoch.
func (h *heads) learn(stream es.Stream, version es.Version, epoch int) {
	if epoch == h.epoch && version > h.knows(stream) {
		h.versions.Add(stream, version)
	}
}

// top notes a position and the token that stands there.
func (h *heads) top(position es.Position, token int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if position > h.position {
		h.position, h.token = position, token
	}
}

// forget drops everything, because the fingerprint was not found.
func (h *heads) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions.Purge()
	h.position, h.token = 0, 0
	h.epoch++
	h.rewound = true
}

func (h *heads) fingerprint() (es.Position, int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.position, h.token
}

func (h *heads) now() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// read notes what a read has seen: the last record of a stream, and the token that stands with it.
func (h *heads) read(stream es.Stream, version es.Version, position es.Position, token int64, epoch int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if epoch != h.epoch {
		return
	}
	h.learn(stream, version, epoch)
	if position > h.position {
		h.position, h.token = position, token
	}
}
