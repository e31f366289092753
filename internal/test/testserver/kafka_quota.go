package testserver

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ProducerQuota limits the bytes per second that producers with a client.id may write to real Kafka.
func ProducerQuota(ctx context.Context, bootstrap, client string, bytes float64) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(bootstrap, ",")...))
	if err != nil {
		return fmt.Errorf("testserver: quota of %s: %w", client, err)
	}
	defer c.Close()
	entity := kmsg.NewAlterClientQuotasRequestEntryEntity()
	entity.Type, entity.Name = "client-id", &client
	op := kmsg.NewAlterClientQuotasRequestEntryOp()
	op.Key, op.Value = "producer_byte_rate", bytes
	entry := kmsg.NewAlterClientQuotasRequestEntry()
	entry.Entity, entry.Ops = append(entry.Entity, entity), append(entry.Ops, op)
	request := kmsg.NewAlterClientQuotasRequest()
	request.Entries = append(request.Entries, entry)
	answer, err := request.RequestWith(ctx, c)
	if err == nil {
		err = kerr.ErrorForCode(answer.Entries[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("testserver: quota of %s: %w", client, err)
	}
	return nil
}
