package postgres

import (
	"context"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

// WriteTogether writes several calls of Append as the store does when they have come at the same time, in this order.
func (s *Store) WriteTogether(ctx context.Context, calls ...[]es.Append) ([]es.Position, []error) {
	requests := make([]*commit.Request, len(calls))
	for i, appends := range calls {
		requests[i] = &commit.Request{Appends: appends}
		for _, a := range appends {
			requests[i].Events += len(a.Events)
		}
	}
	tx, err := s.begin(ctx)
	positions, errs := make([]es.Position, len(calls)), make([]error, len(calls))
	if err == nil {
		tx.Write(ctx, requests)
	}
	for i, r := range requests {
		positions[i], errs[i] = r.Position, r.Err
		if err != nil {
			errs[i] = err
		}
	}
	return positions, errs
}

// Gathering tells how many reads wait to go out together.
func (s *Store) Gathering() int {
	s.loader.mu.Lock()
	defer s.loader.mu.Unlock()
	return len(s.loader.queue)
}

// Loading tells how many round trips of reads are under way.
func (s *Store) Loading() int {
	s.loader.mu.Lock()
	defer s.loader.mu.Unlock()
	return s.loader.busy
}

// The binary format, for which the server is the judge.
var (
	Ints      = getInts
	Timestamp = getTime
)

func TextArray(texts ...string) []byte {
	var a array
	a.reset(oidText)
	for _, s := range texts {
		a.text(s)
	}
	return a.param()
}

func BytesArray(all ...[]byte) []byte {
	var a array
	a.reset(oidBytea)
	for _, b := range all {
		a.bytes(b)
	}
	return a.param()
}

func Int8Array(ints ...int64) []byte {
	var a array
	a.reset(oidInt8)
	for _, i := range ints {
		a.int8(i)
	}
	return a.param()
}

func Int4Array(ints ...int64) []byte {
	var a array
	a.reset(oidInt4)
	for _, i := range ints {
		a.int4(int(i))
	}
	return a.param()
}
