package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Lag is the distance between a reader and the end of a partition, in offsets.
type Lag struct {
	End        int64
	Offsets    int64
	Age        time.Duration
	ClockAhead time.Duration
}

// mostAttempts limits the attempts to get an offset. Each takes up to AskFor.
const mostAttempts = 6

// Bounds returns the offset of the first message of a partition and the one after the last committed message.
func (r *Reader) Bounds(ctx context.Context, p Partition) (low, high int64, err error) {
	if low, err = r.offset(ctx, p, kafka.EarliestOffsetSpec); err == nil {
		high, err = r.offset(ctx, p, kafka.LatestOffsetSpec)
	}
	if err == nil && min(low, high) < 0 {
		err = fmt.Errorf("kafka: offsets of %v: %w", p, errNoOffset)
	}
	return low, high, err
}

// Ends returns the offsets after the last committed messages of partitions.
func (r *Reader) Ends(ctx context.Context, partitions []Partition) (map[Partition]int64, error) {
	return r.offsets(ctx, partitions, kafka.LatestOffsetSpec)
}

// Starts returns the offsets of the first messages of partitions.
func (r *Reader) Starts(ctx context.Context, partitions []Partition) (map[Partition]int64, error) {
	return r.offsets(ctx, partitions, kafka.EarliestOffsetSpec)
}

func (r *Reader) offsets(ctx context.Context, partitions []Partition, spec kafka.OffsetSpec) (map[Partition]int64, error) {
	offsets := make(map[Partition]int64, len(partitions))
	for _, p := range partitions {
		offset, err := r.offset(ctx, p, spec)
		if err == nil && offset < 0 {
			err = fmt.Errorf("kafka: offsets of %v: %w", p, errNoOffset)
		}
		if err != nil {
			return nil, err
		}
		offsets[p] = offset
	}
	return offsets, nil
}

// OffsetAt returns the offset of the first committed message that is not older than a time. It is negative if there is none.
func (r *Reader) OffsetAt(ctx context.Context, p Partition, at time.Time) (int64, error) {
	return r.offset(ctx, p, kafka.NewOffsetSpecForTimestamp(at.UnixMilli()))
}

// offset requests an offset as readers of committed messages see it. A busy broker may take longer than AskFor, and a
// partition may have no leader for a moment, so it retries after all errors except permanent ones.
func (r *Reader) offset(ctx context.Context, p Partition, spec kafka.OffsetSpec) (int64, error) {
	for attempt := 1; ; attempt++ {
		offset, err := r.listOffset(ctx, p, spec)
		switch {
		case err == nil:
			return offset, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case attempt == mostAttempts || !retriable(err):
			err = fmt.Errorf("kafka: offsets of %v: %w", p, r.Trouble.Explain(err))
			return 0, cmp.Or(Denied(err, "Describe", "topic "+p.Topic), err)
		}
		r.Trouble.log.Warn("kafka: cannot get the offsets of a partition, retrying", "partition", p.String(), "attempt", attempt, "err", err)
		if err := Sleep(ctx, Backoff(attempt)); err != nil {
			return 0, err
		}
	}
}

func (r *Reader) listOffset(ctx context.Context, p Partition, spec kafka.OffsetSpec) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, AskFor)
	defer cancel()
	request := map[kafka.TopicPartition]kafka.OffsetSpec{p.At(0): spec}
	answer, err := r.Admin.ListOffsets(ctx, request,
		kafka.SetAdminIsolationLevel(kafka.IsolationLevelReadCommitted), kafka.SetAdminRequestTimeout(AskFor))
	if err != nil {
		return 0, err
	}
	return offsetIn(answer)
}

var errNoOffset = errors.New("the answer has no offset")

// offsetIn returns the offset in an answer about one partition. While the leader changes, librdkafka may return neither
// an offset nor an error. That must not be taken for an empty partition. It is not the negative offset that means that no
// message is as late as a given time.
func offsetIn(answer kafka.ListOffsetsResult) (int64, error) {
	for _, info := range answer.ResultInfos {
		if info.Error.Code() != kafka.ErrNoError {
			return 0, info.Error
		}
		if info.Offset < kafka.OffsetEnd {
			return 0, errNoOffset
		}
		return int64(info.Offset), nil
	}
	return 0, errNoOffset
}

// retriable reports whether a request for an offset may succeed when it is repeated.
func retriable(err error) bool {
	e, ok := KafkaError(err)
	return !ok || !e.IsFatal() && recovers(e)
}
