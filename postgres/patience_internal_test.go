package postgres

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A long wait is logged again and again, but not so often that the log fills up. A short one is not.
func TestALongWaitIsLoggedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuilder
		s := &Store{config: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
		short := s.wait(forConnection)
		time.Sleep(firstWaitLogged / 2)
		short.done()
		time.Sleep(time.Minute)
		if log.String() != "" {
			t.Errorf("a short wait was logged:\n%s", log.String())
		}
		long := s.wait(forConnection)
		for hour := range 3 {
			before := strings.Count(log.String(), "waiting for the server")
			long.failed(errors.New("refused"))
			time.Sleep(time.Hour)
			if n := strings.Count(log.String(), "waiting for the server") - before; n < 59 || n > 66 {
				t.Errorf("in hour %d it was logged %d times, want once a minute", hour, n)
			}
		}
		long.done()
		if text := log.String(); !strings.Contains(text, "for=1s") || !strings.Contains(text, "err=refused") || !strings.Contains(text, "no longer waiting for the server") {
			t.Errorf("the log lacks something:\n%.2000s", text)
		}
	})
}

// A lockedBuilder is written by the goroutine of a timer.
type lockedBuilder struct {
	mu      sync.Mutex
	builder strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.builder.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.builder.String()
}
