package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

const (
	sayAgain = 30 * time.Second // before an error with the same code is logged again
	staysFor = time.Minute      // how long an error explains others
)

// Trouble logs the errors that clients report on their own, outside of any call, and keeps the last one. librdkafka
// recovers from most of them, and says nothing else while it cannot: a call that waits for a cluster which refuses the
// password ends with no more than a timeout. Several clients may share a Trouble, and the tokens with which they log in.
type Trouble struct {
	log    *slog.Logger
	noted  func(error) // called with each error; may be nil
	tokens *tokens     // nil unless the program has its own

	mu     sync.Mutex
	err    error
	at     time.Time
	logged map[kafka.ErrorCode]time.Time
}

// NewTrouble returns a Trouble without errors. noted may be nil.
func NewTrouble(c Cluster, log *slog.Logger, noted func(error)) *Trouble {
	t := &Trouble{log: log, noted: noted, logged: make(map[kafka.ErrorCode]time.Time)}
	if c.Token != nil {
		t.tokens = &tokens{get: c.Token}
	}
	return t
}

// Log returns the logger.
func (t *Trouble) Log() *slog.Logger { return t.log }

// Last returns when the last error was reported, and the error; nil if there was none.
func (t *Trouble) Last() (at time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at, t.err
}

// Event notes an error event of librdkafka, and logs it unless one with its code was logged a moment ago.
func (t *Trouble) Event(err kafka.Error) {
	t.note(err, err.Code() == kafka.ErrAllBrokersDown)
	t.mu.Lock()
	again := time.Since(t.logged[err.Code()]) < sayAgain
	if !again {
		t.logged[err.Code()] = time.Now()
	}
	t.mu.Unlock()
	level := slog.LevelWarn
	if again {
		level = slog.LevelDebug
	}
	t.log.Log(context.Background(), level, "kafka: librdkafka error", "err", err, "code", err.Code().String())
}

// Note keeps an error that did not come from librdkafka, such as a topic that does not exist yet.
func (t *Trouble) Note(err error) { t.note(err, false) }

// note keeps an error. A general one, such as that all brokers are down, does not replace one that says why.
func (t *Trouble) note(err error, general bool) {
	t.mu.Lock()
	if now := time.Now(); !general || now.Sub(t.at) > staysFor {
		t.err, t.at = err, now
	}
	err = t.err
	t.mu.Unlock()
	if t.noted != nil {
		t.noted(err)
	}
}

// Explain adds the last error to one that only says that something took too long.
func (t *Trouble) Explain(err error) error {
	e, ok := KafkaError(err)
	vague := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errTimeout)
	if ok {
		switch e.Code() {
		case kafka.ErrTimedOut, kafka.ErrTimedOutQueue, kafka.ErrMsgTimedOut, kafka.ErrAllBrokersDown, kafka.ErrTransport, kafka.ErrWaitCoord:
			vague = true
		}
	}
	if !vague {
		return err
	}
	at, last := t.Last()
	if last == nil || time.Since(at) > staysFor || strings.Contains(err.Error(), last.Error()) {
		return err
	}
	return fmt.Errorf("%w: %w", err, last)
}

// Forward forwards librdkafka's log lines until lines is closed, with its client, or ended is closed. Errors and
// warnings are kept, and an error from which librdkafka recovers is logged as a warning.
func (t *Trouble) Forward(lines <-chan kafka.LogEvent, ended <-chan struct{}) {
	for {
		var line kafka.LogEvent
		var open bool
		select {
		case line, open = <-lines:
		case <-ended:
		}
		if !open {
			return
		}
		level := slog.LevelWarn
		switch {
		case line.Level >= 7, strings.HasSuffix(line.Message, "property and will be ignored by this producer instance"),
			strings.HasSuffix(line.Message, "property and will be ignored by this consumer instance"): // one Config may serve both
			level = slog.LevelDebug
		case line.Level >= 5:
			level = slog.LevelInfo
		case line.Tag != "CONFWARN":
			t.Note(lineError(line))
		}
		t.log.Log(context.Background(), level, "kafka: librdkafka: "+line.Message, "client", line.Name, "facility", line.Tag)
	}
}

// lineError returns the error of a log line, without the name of the thread that wrote it.
func lineError(line kafka.LogEvent) error {
	text := line.Message
	if strings.HasPrefix(text, "[thrd:") {
		if _, after, ok := strings.Cut(text, "]: "); ok {
			text = after
		}
	}
	return errors.New("librdkafka: " + text)
}
