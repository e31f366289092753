// Package tag has what stores share about the tags of records.
package tag

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Set returns a copy of tags, sorted and without duplicates, or nil if there are none.
func Set(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	set := slices.Clone(tags)
	slices.Sort(set)
	return slices.Clip(slices.Compact(set))
}

// Hash returns the number by which stores index a tag: the first eight bytes of its SHA-256. It is stored, so it never changes.
func Hash(tag string) int64 {
	sum := sha256.Sum256([]byte(tag))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}
