package engine

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// pause is a jittered delay that grows from one attempt to the next.
type pause struct{ next time.Duration }

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

func (p *pause) wait(ctx context.Context) error {
	d := max(p.next, firstPause)
	p.next = min(2*d, lastPause)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clean returns text as valid UTF-8 without NUL, of limited length.
func clean(text string) string {
	const limit = 8 << 10
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + " ..."
	}
	return text
}
