package postgres

import (
	"context"
	"encoding/binary"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
)

// A stride is what a store is in when it has written for a while and nobody else has come in between. Then a single event need not go through
// append_one: one plain statement writes it behind the record of the fingerprint, if that is still the last one. It costs the server
// a third as much beyond a bare INSERT.
//
// The statement takes the lock as well, but what it sees is as of before it had the lock. Two things might have happened in between:
//
//   - Somebody wrote the position that it is about to write, or the version. The unique keys find that; nothing was written then.
//   - A broken call, this one, was found not to have been written, and was fenced off. A row of fences it would not see. But the number
//     of each fence comes from a sequence, and what a sequence has reached is seen at once, by whatever snapshot.
//
// If it writes nothing, append_one is asked, which finds out why. A key that is found leaves a line in the server's log. So who has met others
// must go without them for a while before the next try, and each time for twice as long.
type stride struct {
	taken  int      // appends in a row before which nobody else had written
	needed int      // how many it takes
	fences sequence // the numbers of the fences
}

// A sequence is one in the server, with what it had reached when it was last looked at.
type sequence struct {
	oid     uint32 // 0 if that is not known
	reached int64
}

const (
	strideAfter = 8
	strideMost  = 4096
	strideCalm  = 64 // times what is needed, without meeting anybody, and half of it is enough
)

// note notes a call of append, and whether it found log and streams as this store knows them.
func (st *stride) note(alone bool) {
	st.needed = max(st.needed, strideAfter)
	if !alone {
		st.taken = 0
		return
	}
	st.taken++
	if st.taken > strideCalm*st.needed && st.needed > strideAfter {
		st.needed, st.taken = st.needed/2, st.needed/2
	}
}

func (st *stride) ready() bool { return st.taken >= max(st.needed, strideAfter) }

// stumble notes that the short way led nowhere.
func (st *stride) stumble() {
	st.needed = min(2*max(st.needed, strideAfter), strideMost)
	st.taken, st.fences = 0, sequence{}
}

// strides tells whether a batch can take the short way: a single event, whose version is known.
func (s *Store) strides(b *batch, known es.Position) bool {
	return s.stride.ready() && known > 0 && b.single() && !s.unprepared.Load() && !s.wrapped.Load()
}

// step writes the single event of a batch the short way, and tells whether it did. The error is nil if the server says that it did not.
func (s *Store) step(ctx context.Context, conn *pgx.Conn, b *batch, known es.Position, token int64) (written bool, err error) {
	st := &s.stride
	if st.fences.oid == 0 {
		if err := s.each(ctx, conn, s.statements.fences, [][]byte{[]byte(s.schema + ".fences")}, func(row [][]byte) error {
			if row[1] != nil { // or the role may not see it
				st.fences = sequence{binary.BigEndian.Uint32(row[0]), getInt8(row[1])}
			}
			return nil
		}); err != nil || st.fences.oid == 0 {
			return false, s.stumbles(err)
		}
	}
	p := &b.params
	p.reset()
	p.int8(int64(known))
	p.int8(token)
	p.oid(st.fences.oid)
	p.int8(st.fences.reached)
	p.int8(b.tokens + 1)
	for _, a := range b.event() {
		p.add(a.only())
	}
	tag, err := s.exec(ctx, conn, s.statements.appendNext, p.values, nil)
	if err != nil || tag.RowsAffected() != 1 {
		return false, s.stumbles(err)
	}
	return true, nil
}

// stumbles returns the error if the server itself does not say that nothing was written.
func (s *Store) stumbles(err error) error {
	s.stride.stumble()
	if err != nil && isRefused(err) {
		return nil
	}
	return err
}
