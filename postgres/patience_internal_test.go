package postgres

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es/internal/test/logged"
)

// A long wait is logged again and again, but not so often that the log fills up. A short one is not.
func TestALongWaitIsLoggedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged.Text
		s := &Store{config: Config{Logger: log.Logger()}}
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
