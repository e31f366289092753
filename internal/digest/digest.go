// Package digest tells events of different content apart. A Repo puts the digest of the last event into a state, and into a snapshot, to
// recognise the history that they are of; cmd/es holds snapshots against the log by it.
package digest

import "hash/fnv"

// Of returns the digest of an event: FNV-1a, with 64 bits, of its type and its data. Two events of different content have the same one
// hardly ever. Snapshots have it: another way to compute it would make all of them useless.
func Of(eventType string, data []byte) uint64 {
	h := fnv.New64a()
	var room [64]byte                                         // the name of a type hardly ever needs more
	_, _ = h.Write(append(append(room[:0], eventType...), 0)) // a hash has no error
	_, _ = h.Write(data)
	return h.Sum64()
}
