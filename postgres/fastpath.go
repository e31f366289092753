package postgres

import (
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
)

// A soloWriter decides when the fast path is open: after several appends with no other writer in between, a single event is inserted by
// one plain statement instead of append_one. The statement writes it after the record of the fingerprint, if that is still the last one.
// Measured beyond a bare INSERT, it costs the server a third of what append_one does.
//
// The statement takes the lock too, but its snapshot is older than the lock. Two things may have happened in between:
//
//   - Another writer has written the same position or version. The unique keys detect this, and nothing is written.
//   - The call itself was resolved as not written and fenced off. The statement would not see a new row of fences. But the number of each
//     fence comes from a sequence, and the current value of a sequence is visible to every snapshot.
//
// If the statement writes nothing, append_one is called and finds out why. Because a violated key writes a line to the server's log, the
// fast path stays closed for exponentially longer after each meeting with another writer.
type soloWriter struct {
	streak int      // appends in a row with no other writer in between
	needed int      // the streak that opens the fast path
	fences sequence // the numbers of the fences
}

// A sequence is a sequence in the server, with its value when the store last read it.
type sequence struct {
	oid   uint32 // 0 if unknown
	value int64
}

const (
	soloAfter = 8    // the least streak that opens the fast path
	soloMost  = 4096 // the most
	soloCalm  = 64   // after a streak of this many times what is needed, half of it is enough
)

// observe notes an append, and whether the log and its streams were as this store knew them.
func (w *soloWriter) observe(alone bool) {
	w.needed = max(w.needed, soloAfter)
	if !alone {
		w.streak = 0
		return
	}
	w.streak++
	if w.streak > soloCalm*w.needed && w.needed > soloAfter {
		w.needed, w.streak = w.needed/2, w.needed/2
	}
}

// open reports whether the fast path is open.
func (w *soloWriter) open() bool { return w.streak >= max(w.needed, soloAfter) }

// backOff closes the fast path, for twice as long as the last time.
func (w *soloWriter) backOff() {
	w.needed = min(2*max(w.needed, soloAfter), soloMost)
	w.streak, w.fences = 0, sequence{}
}

// takesFastPath reports whether a batch is a single event with a known version, and the fast path is open.
func (s *Store) takesFastPath(b *batch, known es.Position) bool {
	return s.solo.open() && known > 0 && b.single() && !s.unprepared.Load() && !s.wrapped.Load()
}

// appendNext writes the single event of a batch by the fast path, and reports whether it did. If nothing was written it closes the path,
// and returns an error only if that is not certain.
func (s *Store) appendNext(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (done bool, err error) {
	done, err = s.tryNext(ctx, conn, b, known, token)
	if done {
		return true, nil
	}
	s.solo.backOff()
	if classify(err).has(refused) {
		err = nil
	}
	return false, err
}

func (s *Store) tryNext(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (done bool, err error) {
	fences := &s.solo.fences
	if fences.oid == 0 {
		err := s.each(ctx, conn, s.statements.fences, [][]byte{[]byte(s.schema + ".fences")}, func(row [][]byte) error {
			if row[1] != nil { // the role may not be allowed to read it
				*fences = sequence{binary.BigEndian.Uint32(row[0]), getInt8(row[1])}
			}
			return nil
		})
		if err != nil || fences.oid == 0 {
			return false, err
		}
	}
	p := &b.params
	p.reset()
	p.int8(int64(known))
	p.int8(token)
	p.oid(fences.oid)
	p.int8(fences.value)
	p.int8(b.tokens + 1)
	for _, a := range b.event() {
		p.add(a.only())
	}
	tag, err := s.exec(ctx, conn, s.statements.appendNext, p.values, nil)
	return err == nil && tag.RowsAffected() == 1, err
}
