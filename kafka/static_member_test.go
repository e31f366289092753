package kafka_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/logged"
	"github.com/thalo-go/es/kafka"
)

// assigned returns the partitions that a consumer has.
func assigned(c *kafka.Consumer) (numbers []int32) {
	for _, s := range c.Stats() {
		if s.Partition >= 0 {
			numbers = append(numbers, s.Partition)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// A static member that restarts gets its partitions again, and the others keep theirs in between.
func TestAStaticMemberKeepsItsPartitionsOverARestart(t *testing.T) {
	t.Parallel()
	each(t, 4, func(t *testing.T, b bank) {
		p, got, heard := newPublisher(t, b), newCollector(), new(logged.Text)
		member := func(name string) (*kafka.Consumer, func() error) {
			c := consumer(t, b)
			c.Cluster.Config["group.instance.id"], c.Cluster.Config["session.timeout.ms"] = name, 300_000
			c.OnError = es.Park // which reads and commits with other clients
			if name == "two" {
				c.Logger = slog.New(slog.NewTextHandler(heard, nil))
			}
			return c, start(t, func(ctx context.Context) error { return c.Run(ctx, got.handle) })
		}
		one, stopOne := member("one")
		two, _ := member("two")
		eventually(t, "both have partitions", func() bool { return len(assigned(one)) == 2 && len(assigned(two)) == 2 })
		all := p.publish(40, 20)
		got.await(t, "all records", got.has(all))
		before, said := assigned(two), heard.String()
		if err := stopOne(); !errors.Is(err, context.Canceled) {
			t.Fatalf("Run returned %v", err)
		}
		all = append(all, p.publish(40, 20)...)
		one, _ = member("one")
		got.await(t, "all records", got.has(all))
		if now := assigned(two); !slices.Equal(now, before) || len(assigned(one)) != 2 {
			t.Errorf("the other member has %v, and had %v", now, before)
		}
		if more := strings.TrimPrefix(heard.String(), said); strings.Contains(more, "partitions revoked") {
			t.Errorf("the group has rebalanced: %s", more)
		}
		got.inOrder(t)
	})
}
