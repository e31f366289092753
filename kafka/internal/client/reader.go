package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es"
)

const (
	PollFor  = 100 * time.Millisecond // the timeout of a poll, which is also how late a reader notices that its context has ended
	AskFor   = 10 * time.Second       // the timeout of a request to the cluster
	closeFor = 10 * time.Second       // the timeout of closing a client, which may block after a fatal error
)

// Reader is a consumer of librdkafka with an admin client. It forwards librdkafka's log, and its Close and Call do not block forever.
type Reader struct {
	*kafka.Consumer
	Admin   *kafka.AdminClient
	Trouble *Trouble
	login   *login
	logs    sync.WaitGroup
	ended   chan struct{}
	calls   sync.WaitGroup // including those that have timed out
}

// OpenReader returns a reader, which reports its errors to t. It changes nothing in config.
func OpenReader(config ConfigMap, t *Trouble) (*Reader, error) {
	config = maps.Clone(config)
	c, err := kafka.NewConsumer(&config)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w: %w", es.ErrInvalid, explainOpen(err))
	}
	r := &Reader{Consumer: c, Trouble: t, ended: make(chan struct{})}
	r.logs.Go(func() { t.Forward(c.Logs(), r.ended) })
	r.login = t.login(c)
	if r.Admin, err = kafka.NewAdminClientFromConsumer(c); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return r, nil
}

// Close ends the client. If that takes too long, which happens after some fatal errors, Close abandons it and returns an error.
func (r *Reader) Close() error {
	err := CloseWithin(func() error {
		r.calls.Wait() // a call must not use a client that is closed
		r.login.end()
		if r.Admin != nil {
			r.Admin.Close()
		}
		return r.Consumer.Close()
	})
	close(r.ended)
	r.logs.Wait()
	return err
}

// CloseWithin closes a client. If that takes too long, which happens after some fatal errors, CloseWithin abandons the call and returns an error.
func CloseWithin(closing func() error) error {
	return within(closeFor, "close a client", closing)
}

// Call runs a call that cannot be canceled, with a timeout.
func (r *Reader) Call(what string, f func() error) error {
	r.calls.Add(1)
	return within(AskFor, what, func() error {
		defer r.calls.Done()
		return f()
	})
}

var errTimeout = errors.New("no answer")

func within(limit time.Duration, what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("kafka: %s: %w within %v", what, errTimeout, limit)
	}
}

// ToEnd makes ReadPartition stop at the end of what is committed when it gets there.
const ToEnd = -1

// ReadPartition reads the committed messages of a partition from an offset on, with a client of its own, and stops before the offset to.
// It waits for transactions that are open before to; with [ToEnd] it waits for none.
func ReadPartition(ctx context.Context, config ConfigMap, t *Trouble, p Partition, from, to int64) iter.Seq2[*kafka.Message, error] {
	return func(yield func(*kafka.Message, error) bool) {
		if to != ToEnd && from >= to {
			return
		}
		if err := readPartition(ctx, config, t, p, from, to, func(m *kafka.Message) bool { return yield(m, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func readPartition(ctx context.Context, config ConfigMap, t *Trouble, p Partition, from, to int64, visit func(*kafka.Message) bool) error {
	r, err := OpenReader(config, t)
	if err != nil {
		return err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.log.Error("kafka: reader not closed", "partition", p.String(), "err", err)
		}
	}()
	if err := r.Assign([]kafka.TopicPartition{p.At(from)}); err != nil {
		return fmt.Errorf("kafka: read %v: %w", p, err)
	}
	slow := time.Now().Add(AskFor)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch e := r.Poll(int(PollFor.Milliseconds())).(type) {
		case *kafka.Message:
			if to != ToEnd && int64(e.TopicPartition.Offset) >= to || !visit(e) {
				return nil
			}
		case kafka.PartitionEOF:
			if int64(e.Offset) >= to {
				return nil
			}
		case kafka.Error:
			if e.IsFatal() || !recovers(e) {
				err := fmt.Errorf("kafka: read %v: %w", p, e)
				return cmp.Or(Denied(err, "Read", "topic "+p.Topic), err)
			}
			t.Event(e)
		}
		if time.Now().After(slow) {
			slow = time.Now().Add(AskFor)
			t.log.Warn("kafka: reading waits for open transactions or for the cluster", "partition", p.String(), "to", to)
		}
	}
}

// seekOver is the gap between two messages that is skipped by a request instead of being read.
const seekOver = 2000

// ReadOffsets reads the messages of a partition at offsets, which must be sorted, with a client of its own. Those that do not exist are left out.
func ReadOffsets(ctx context.Context, config ConfigMap, t *Trouble, p Partition, offsets []int64) iter.Seq2[*kafka.Message, error] {
	return func(yield func(*kafka.Message, error) bool) {
		for len(offsets) > 0 {
			begin, last := offsets[0], int64(0)
			seek := false
			for m, err := range ReadPartition(ctx, config, t, p, begin, ToEnd) {
				if err != nil {
					yield(nil, err)
					return
				}
				last = int64(m.TopicPartition.Offset)
				wanted := false
				for len(offsets) > 0 && offsets[0] <= last {
					wanted = wanted || offsets[0] == last
					offsets = offsets[1:]
				}
				if wanted && !yield(m, nil) {
					return
				}
				if seek = len(offsets) > 0 && offsets[0]-last > seekOver; seek || len(offsets) == 0 {
					break
				}
			}
			if !seek {
				return
			}
		}
	}
}

// ReadToEnds reads committed messages of partitions, each from an offset on that exists, and stops when it has reached all their ends.
// It uses r for nothing else.
func ReadToEnds(ctx context.Context, r *Reader, from map[Partition]int64) iter.Seq2[*kafka.Message, error] {
	return func(yield func(*kafka.Message, error) bool) {
		if len(from) == 0 {
			return
		}
		if err := readToEnds(ctx, r, from, func(m *kafka.Message) bool { return yield(m, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

func readToEnds(ctx context.Context, r *Reader, from map[Partition]int64, visit func(*kafka.Message) bool) error {
	var assign []kafka.TopicPartition
	for p, offset := range from {
		assign = append(assign, p.At(offset))
	}
	if err := r.Assign(assign); err != nil {
		return fmt.Errorf("kafka: read %v: %w", assign, err)
	}
	slow := time.Now().Add(AskFor)
	silent := maps.Clone(from) // the partitions without a message so far
	for ended := make(map[Partition]bool); len(ended) < len(from); {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch e := r.Poll(int(PollFor.Milliseconds())).(type) {
		case *kafka.Message:
			delete(silent, PartitionOf(e.TopicPartition))
			if !visit(e) {
				return nil
			}
		case kafka.PartitionEOF:
			ended[PartitionOf(kafka.TopicPartition(e))] = true
		case kafka.Error:
			if err := r.readError(e, assign); err != nil {
				return err
			}
		}
		if time.Now().After(slow) {
			slow = time.Now().Add(AskFor)
			r.Trouble.log.Warn("kafka: reading waits for open transactions or for the cluster", "partitions", fmt.Sprint(assign))
		}
	}
	if len(silent) > 0 { // an answer that denies the read may have an end too, which is reported before its error
		if e, failed := r.Poll(int(PollFor.Milliseconds())).(kafka.Error); failed {
			return r.readError(e, assign)
		}
	}
	return nil
}

// readError returns the error if the reader does not recover from it.
func (r *Reader) readError(e kafka.Error, from []kafka.TopicPartition) error {
	if !e.IsFatal() && recovers(e) {
		r.Trouble.Event(e)
		return nil
	}
	err := fmt.Errorf("kafka: read %v: %w", from, e)
	return cmp.Or(Denied(err, "Read", "topic "+*from[0].Topic), err)
}

// recovers reports whether librdkafka recovers from an error of a reader.
func recovers(e kafka.Error) bool {
	switch e.Code() {
	case kafka.ErrUnknownTopicOrPart, kafka.ErrUnknownTopic, kafka.ErrUnknownPartition: // librdkafka does not look for it again soon
		return false
	case kafka.ErrGroupAuthorizationFailed: // librdkafka looks for the coordinator of the group, which the reader does not join
		return true
	}
	return passing[e.Code()]
}
