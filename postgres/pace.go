package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// A pace bounds the work of each statement that reads. A statement that the server cancels, such as for statement_timeout, is followed by a
// smaller one. So reading makes progress whatever the time limit is, and what was read before is kept.
type pace struct {
	mu     sync.Mutex
	rows   int           // that a statement may return
	span   es.Position   // positions that a statement with a filter may scan
	target time.Duration // a statement that took less may be followed by a larger one
}

const (
	firstSpan  = 20_000
	lastSpan   = 1 << 20
	lastTarget = 50 * time.Millisecond
	leastSpan  = 16
	cutBy      = 16 // the next statement is smaller by this factor if none of the rows arrived
)

func (p *pace) init() { p.rows, p.span, p.target = logPage, firstSpan, lastTarget }

// limits returns the rows that the next statement may return, at most the rows wanted, and the positions that it may scan.
func (p *pace) limits(want int) (rows int, span es.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(want, p.rows), p.span
}

// done notes how long a statement took, and whether its limits were reached.
func (p *pace) done(took time.Duration, allRows, allSpan bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	quick := took < p.target/2
	p.target = min(p.target+p.target/16+1, lastTarget)
	switch {
	case quick && allRows:
		p.rows = min(2*p.rows, logPage)
	case quick && allSpan:
		p.span = min(2*p.span, lastSpan)
	case allSpan && took > 2*p.target:
		p.span = max(p.span/2, leastSpan)
	}
}

// cut notes that the server cancelled a statement with some limits after a number of rows had arrived. It reports whether a smaller one may
// succeed.
func (p *pace) cut(took time.Duration, rows int, span es.Position, arrived int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = min(p.target, max(took/4, time.Millisecond))
	if arrived > 0 {
		p.rows = min(p.rows, max(1, arrived/2))
		return true
	}
	smaller := rows > 1 || span > leastSpan
	p.rows = min(p.rows, max(1, rows/cutBy))
	if span > 0 {
		p.span = min(p.span, max(leastSpan, span/cutBy))
	}
	return smaller
}

// paced reads a page, and a smaller one if the server cancels the statement.
func (s *Store) paced(ctx context.Context, want int, filtered bool, read func(limit int, span es.Position) page) page {
	for {
		limit, span := s.pace.limits(want)
		if !filtered {
			span = 0
		}
		began := time.Now()
		p := read(limit, span)
		took := time.Since(began)
		switch {
		case p.err == nil:
			s.pace.done(took, p.count == limit, p.upTo > 0)
			return p
		case ctx.Err() != nil || classify(p.err).code != queryCanceled || !s.pace.cut(took, limit, span, p.count):
			return p
		case p.count > 0:
			p.whole, p.err = false, nil // the records that have arrived are good
			return p
		}
	}
}
