package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
)

const (
	// lookAgain is how long a relay writes to a topic without a look whether it is still the same. A cluster takes what is written under a topic's name, also
	// if that topic was deleted and created again since, and a producer does not hear of it.
	lookAgain = time.Second

	// lookTime bounds a look, which a transaction waits for. One that takes longer is left to the next transaction.
	lookTime = 2 * time.Second
)

// look sees, while a batch is on its way, whether its topics are still those that they were, if that is not known for a while. over ends that. Its error means
// that the batch must not count, and is for examineAgain; stop was called at once then.
func (s *session) look(ctx context.Context, stop func()) (over func() error) {
	s.looks++
	var topics []*destination
	for _, to := range s.targets {
		if to != nil && to.looks != s.looks {
			to.looks = s.looks
			topics = append(topics, to)
		}
	}
	if topics == nil {
		return func() error { return nil }
	}
	done, seen := make(chan struct{}), make(chan error, 1)
	go func() {
		err := s.keepLooking(ctx, topics, done)
		if err != nil {
			stop()
		}
		seen <- err
	}()
	return func() error {
		close(done)
		return <-seen
	}
}

// keepLooking looks at topics whenever the last look is long ago, until the batch is done.
func (s *session) keepLooking(ctx context.Context, topics []*destination, done <-chan struct{}) error {
	for {
		var due []*destination
		wait := lookAgain
		for _, to := range topics {
			if left := lookAgain - time.Since(to.looked); left <= 0 {
				due = append(due, to)
			} else {
				wait = min(wait, left)
			}
		}
		if due != nil {
			if err := s.lookAt(ctx, due); err != nil {
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

func (s *session) lookAt(ctx context.Context, topics []*destination) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	names := make([]string, len(topics))
	for i, to := range topics {
		names[i] = to.name
	}
	marks, err := client.DescribeTopics(ctx, s.admin, names...)
	if err != nil {
		s.w.r.log.Debug("kafka: relay cannot look at its topics", "error", err)
		return nil // it looks again
	}
	for _, to := range topics {
		switch mark, there := marks[to.name]; {
		case !there:
			return fmt.Errorf("kafka: topic %s is gone", to.name)
		case mark.ID != to.mark.ID:
			return fmt.Errorf("kafka: topic %s is another than it was: its id is %s and not %s", to.name, mark.ID, to.mark.ID)
		}
		to.looked = time.Now()
	}
	return nil
}

// examineAgain finds out what has become of topics that are not what they were. It may have been no more than a broker that has just started.
func (s *session) examineAgain(ctx context.Context, looked error) error {
	if err := s.to.refresh(ctx, &s.c); err != nil {
		return err
	}
	return looked
}
