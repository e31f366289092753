package client

import (
	"testing"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// An answer without an offset was once taken for an empty checkpoint topic: the relay overwrote its checkpoint.
func TestAnAnswerWithoutAnOffsetIsAnError(t *testing.T) {
	leaderChanged := kafka.NewError(kafka.ErrNotLeaderForPartition, "", false)
	for _, c := range []struct {
		name   string
		info   kafka.ListOffsetsResultInfo
		failed bool
	}{
		{"the first message", kafka.ListOffsetsResultInfo{Offset: 0}, false},
		{"a later message", kafka.ListOffsetsResultInfo{Offset: 7}, false},
		{"no message so late", kafka.ListOffsetsResultInfo{Offset: kafka.OffsetEnd}, false},
		{"neither an offset nor an error", kafka.ListOffsetsResultInfo{Offset: kafka.OffsetInvalid}, true},
		{"an error", kafka.ListOffsetsResultInfo{Offset: kafka.OffsetEnd, Error: leaderChanged}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := kafka.ListOffsetsResult{ResultInfos: map[kafka.TopicPartition]kafka.ListOffsetsResultInfo{Partition{Topic: "t"}.At(0): c.info}}
			offset, err := offsetIn(answer)
			if (err != nil) != c.failed || err == nil && offset != int64(c.info.Offset) {
				t.Errorf("got offset %d and error %v", offset, err)
			}
			if err != nil && !retriable(err) {
				t.Errorf("%v is not retried", err)
			}
		})
	}
	if _, err := offsetIn(kafka.ListOffsetsResult{}); err == nil {
		t.Error("an empty answer is no error")
	}
}
