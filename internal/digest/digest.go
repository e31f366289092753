// Package digest computes a hash of an event. Repo keeps the digest of the last event with each cached state and snapshot, to check that they
// belong to the history in the store. Command es compares snapshots with the log by it.
package digest

import "hash/fnv"

// Of returns the 64-bit FNV-1a hash of the type and the data of an event. It is stored in snapshots, so changing it would invalidate all of them.
func Of(eventType string, data []byte) uint64 {
	h := fnv.New64a()
	var name [64]byte                                         // enough for most types
	_, _ = h.Write(append(append(name[:0], eventType...), 0)) // a hash returns no error
	_, _ = h.Write(data)
	return h.Sum64()
}
