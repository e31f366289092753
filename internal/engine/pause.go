package engine

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"
)

// A pause grows from one attempt to the next, and is never quite the same.
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

// clean makes of any text one that every database takes, and that is not too long to be read.
func clean(text string) string {
	const most = 8 << 10
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " ..."
	}
	return text
}
