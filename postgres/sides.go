package postgres

import (
	"slices"

	"github.com/thalo-go/es"
)

// A side is a record that the log must have, besides that of the fingerprint, for cached heads to be right.
//
// With one batch at a time, each answer belongs to the history of the fingerprint that its batch carried, and becomes the next fingerprint.
// Of two batches in flight, neither carries the other's answer. During a failover one may be answered by the old server and the other by the
// new one. So the answer that arrives second becomes a side. Every batch carries the fingerprint and all sides, and the server compares all of
// them. Once the answer to such a batch is there, it stands for them.
//
// It holds at all times: each cached version belongs to the history of the fingerprint or of a side, and no side is above the fingerprint.
type side struct {
	position es.Position
	token    int64
}

// mostSides is the most sides. Beyond it, nothing is learnt from an answer that would add one.
const mostSides = 8

// learnsFrom reports whether the answer to a batch may be learnt from. The caller holds the lock.
func (h *heads) learnsFrom(b *batch) bool {
	return b.epoch == h.epoch && (!b.together || len(h.sides) < mostSides)
}

// settle notes the last record of a batch that was written. The caller holds the lock.
func (h *heads) settle(b *batch, last side) {
	h.forget(b)
	now := side{h.position, h.token}
	if b.together && now != (side{b.known, b.token}) && now != last {
		if last.position > now.position {
			now, last = last, now
		}
		h.sides = append(h.sides, last)
		h.position, h.token = now.position, now.token
		return
	}
	if last.position > h.position {
		h.position, h.token = last.position, last.token
	}
}

// covered notes that the log has the fingerprint and the sides of a batch in one snapshot.
func (h *heads) covered(b *batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.epoch == h.epoch {
		h.forget(b)
	}
}

// forget removes the sides of a batch, which its fingerprint or its answer stands for.
func (h *heads) forget(b *batch) {
	h.sides = slices.DeleteFunc(h.sides, func(s side) bool { return slices.Contains(b.also, s) })
}
