package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
)

const (
	// recheckEvery is how long a relay writes to a topic without checking that it is still the same one. A cluster accepts writes under a topic's name
	// even if that topic was deleted and created again, and does not tell the producer.
	recheckEvery = time.Second

	// recheckFor is the timeout of a check, which a transaction waits for. After a timeout the check is left to the next transaction.
	recheckFor = 2 * time.Second
)

// recheck checks, while a batch is being sent, that its topics are still the same. The returned function stops the checks and waits for them.
// If it returns an error, the batch must be aborted; stop has been called then. The error is for examineAgain.
func (s *session) recheck(ctx context.Context, stop func()) (unchanged func() error) {
	s.checks++
	var topics []*destination
	for i := range s.plan {
		if to := s.plan[i].to; to.check != s.checks {
			to.check = s.checks
			topics = append(topics, to)
		}
	}
	if topics == nil {
		return func() error { return nil }
	}
	done, result := make(chan struct{}), make(chan error, 1)
	go func() {
		err := s.recheckUntil(ctx, topics, done)
		if err != nil {
			stop()
		}
		result <- err
	}()
	return func() error {
		close(done)
		return <-result
	}
}

// recheckUntil checks each topic whose last check is too old, until done is closed.
func (s *session) recheckUntil(ctx context.Context, topics []*destination, done <-chan struct{}) error {
	for {
		var due []*destination
		wait := recheckEvery
		for _, to := range topics {
			if left := recheckEvery - time.Since(to.checked); left <= 0 {
				due = append(due, to)
			} else {
				wait = min(wait, left)
			}
		}
		if due != nil {
			if err := s.recheckNow(ctx, due); err != nil {
				return err
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (s *session) recheckNow(ctx context.Context, topics []*destination) error {
	ctx, cancel := context.WithTimeout(ctx, recheckFor)
	defer cancel()
	names := make([]string, len(topics))
	for i, to := range topics {
		names[i] = to.name
	}
	now, err := client.DescribeTopics(ctx, s.admin, names...)
	if err != nil {
		s.r.log.Debug("kafka: topics not checked", "err", err)
		return nil // the next check follows
	}
	for _, to := range topics {
		switch topic, exists := now[to.name]; {
		case !exists:
			return fmt.Errorf("kafka: topic %s is gone", to.name)
		case topic.ID != to.topic.ID:
			return fmt.Errorf("kafka: topic %s has id %s, not %s", to.name, topic.ID, to.topic.ID)
		}
		to.checked = time.Now()
	}
	return nil
}

// examineAgain returns a permanent error if topics have changed, and otherwise the error of the check: a broker that has just started
// may not know a topic for a moment.
func (s *session) examineAgain(ctx context.Context, changed error) error {
	if err := s.topics.refresh(ctx, &s.c); err != nil {
		return err
	}
	return changed
}
