// Package logged keeps what is logged, so that a test can look at it while it is written.
package logged

import (
	"log/slog"
	"strings"
	"sync"
)

// Text is what was logged. The zero value is empty.
type Text struct {
	mu   sync.Mutex
	text strings.Builder
}

// Logger returns a logger that adds to the text.
func (t *Text) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(t, nil)) }

// Write implements [io.Writer].
func (t *Text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// String returns the text so far.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// Count returns the number of times that the text so far contains what.
func (t *Text) Count(what string) int { return strings.Count(t.String(), what) }
