package kafka_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/projection"
)

func threads(t testing.TB) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// Each client has about six threads, so the partitions of a source share clients. Not parallel, because other tests have clients too.
func TestASourceOfFiftyPartitionsHasFewThreads(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("counts the entries of /proc/self/task")
	}
	b := newBank(t, testserver.FakeBroker(t, kafkatest.Options{}), 50)
	p := newPublisher(t, b)
	all := p.publish(500, 100)
	before := threads(t)
	s := source(t, b)
	opened := make([]projection.Feed, 50)
	for i := range opened {
		opened[i] = feed(t, s, fmt.Sprintf("%s/%d", b.topic, i), 0, es.Filter{})
	}
	records := 0
	for _, f := range opened {
		for caughtUp := false; !caughtUp; {
			batch, err := f.Next(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			records += len(batch.Records)
			caughtUp = batch.Next == batch.End
		}
	}
	got := threads(t) - before
	t.Logf("%d further threads for 50 partitions", got)
	if got > 60 || records != len(all) {
		t.Errorf("%d further threads, want at most 60; %d records of %d", got, records, len(all))
	}
}

// Two read models of one source read the same partitions, each from its own place, and a feed that is not read delays no other.
func TestFeedsOfOneSourceDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	each(t, 2, func(t *testing.T, b bank) {
		p := newPublisher(t, b)
		p.publish(12_000, 40) // more than a feed buffers
		s := source(t, b)
		var idle []projection.Feed
		for i := range 2 {
			idle = append(idle, feed(t, s, fmt.Sprintf("%s/%d", b.topic, i), 0, es.Filter{})) // and not read
		}
		for i := range 2 {
			shard := fmt.Sprintf("%s/%d", b.topic, i)
			whole, cursors, _ := readAll(t, feed(t, s, shard, 0, es.Filter{}), 0, 500)
			half := len(whole) / 2
			rest, _, _ := readAll(t, feed(t, s, shard, cursors[half-1], es.Filter{}), cursors[half-1], 500)
			late, _, _ := readAll(t, idle[i], 0, 500)
			if len(late) != len(whole) || len(rest) != len(whole)-half {
				t.Errorf("%s: %d records, %d from the middle on, %d by a feed that was read late", shard, len(whole), len(rest), len(late))
			}
		}
	})
}
