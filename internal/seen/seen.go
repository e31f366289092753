// Package seen remembers to which streams the last records belong that a store has handed out or written.
//
// When the log loses its end, a caller of the store may know a version of such a stream that is lost, and the new history may have reached the
// same version with another event. Its append must be refused. For any other stream no caller knows a lost version.
package seen

import (
	"hash/maphash"
	"sync"

	"github.com/thalo-go/es"
)

// size is the number of positions before the highest one whose streams are remembered. If the log has lost more, any stream is suspect.
const size = 1 << 14

var seed = maphash.MakeSeed()

// slot is a record. Its place is its position modulo size.
type slot struct {
	position es.Position
	stream   uint64 // a hash
}

// Streams are the streams of the last records. The zero value has none.
type Streams struct {
	mu        sync.Mutex
	slots     []slot
	highest   es.Position
	forgotten es.Position // the highest position whose stream is not remembered
	epoch     int         // the number of rewinds
	suspects  map[uint64]struct{}
	all       bool // any stream is suspect

	// replaced are streams whose record was followed by another one at its position, which is how a loss shows that was not noticed yet.
	replaced map[uint64]struct{}
}

// Epoch returns the number of rewinds. What is read from now on is noted with it.
func (s *Streams) Epoch() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// Reach notes a position of the log without its stream, which no caller knows.
func (s *Streams) Reach(position es.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.highest = max(s.highest, position)
}

// Note notes that callers know a stream up to a record, as it was read or written in an epoch. It comes before they do.
func (s *Streams) Note(epoch int, position es.Position, stream es.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(epoch, position, stream)
}

// NoteAll is Note for records of many streams, by position.
func (s *Streams) NoteAll(epoch int, records []es.Record) {
	if len(records) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := records[len(records)-1].Position
	if epoch == s.epoch && last+size <= s.highest { // they would be forgotten at once
		s.forgotten = max(s.forgotten, last)
		return
	}
	for i := range records {
		s.note(epoch, records[i].Position, records[i].Stream)
	}
}

func (s *Streams) note(epoch int, position es.Position, stream es.Stream) {
	hash := maphash.Comparable(seed, stream)
	if epoch != s.epoch { // it may be of a history that was lost since
		s.suspect(hash)
		return
	}
	s.highest = max(s.highest, position)
	if position+size <= s.highest {
		s.forgotten = max(s.forgotten, position)
		return
	}
	if s.slots == nil {
		s.slots = make([]slot, size)
	}
	at := &s.slots[position%size]
	switch {
	case at.position == position && at.stream != hash && at.stream != 0:
		if s.replaced == nil {
			s.replaced = make(map[uint64]struct{})
		}
		s.replaced[at.stream] = struct{}{}
	case at.position != position: // if it is higher, it is of a history whose loss was not noticed yet
		s.forgotten = max(s.forgotten, at.position)
	}
	*at = slot{position, hash}
}

func (s *Streams) suspect(hash uint64) {
	if s.suspects == nil {
		s.suspects = make(map[uint64]struct{})
	}
	s.suspects[hash] = struct{}{}
}

// Rewound notes that the log has lost its records after a position, and begins the next epoch.
func (s *Streams) Rewound(common es.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.all = s.all || s.forgotten > common
	for i := range s.slots {
		if at := &s.slots[i]; at.position > common {
			s.suspect(at.stream)
			*at = slot{}
		}
	}
	for hash := range s.replaced {
		s.suspect(hash)
	}
	s.replaced, s.highest = nil, min(s.highest, common)
}

// Suspect reports whether a caller may know a version of a stream that is lost.
func (s *Streams) Suspect(stream es.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all {
		return true
	}
	_, found := s.suspects[maphash.Comparable(seed, stream)]
	return found
}
