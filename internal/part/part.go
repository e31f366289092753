// Package part divides the streams of a log into partitions. Readers and checkpoints use the same division.
package part

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Part is one of the partitions of a log.
type Part struct{ I, Of int }

// String returns its name: 0/4 is the first of four.
func (p Part) String() string { return strconv.Itoa(p.I) + "/" + strconv.Itoa(p.Of) }

// Parse is the inverse of [Part.String].
func Parse(name string) (p Part, err error) {
	i, of, _ := strings.Cut(name, "/")
	if p.I, err = strconv.Atoi(i); err == nil {
		p.Of, err = strconv.Atoi(of)
	}
	if err != nil || p.I < 0 || p.I >= p.Of || p.String() != name {
		return Part{}, fmt.Errorf("%q is no shard of a log: they are called 0/4, 1/4, 2/4 and 3/4 if there are four", name)
	}
	return p, nil
}

// Of returns the part of a stream: the 64-bit FNV-1a of its name, modulo the number of parts. This never changes.
func Of(stream string, of int) Part {
	if of <= 1 {
		return Part{0, 1}
	}
	return Part{int(Hash(stream) % uint64(of)), of}
}

// Hash returns what decides about the part of a stream.
func Hash(stream string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(stream))
	return h.Sum64()
}

// Names returns the names of that many parts, and of one part if the number is smaller than one.
func Names(of int) []string {
	names := make([]string, max(of, 1))
	for i := range names {
		names[i] = Part{i, len(names)}.String()
	}
	return names
}
