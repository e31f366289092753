package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka"
)

const (
	quotaBytes  = 100_000 // per second
	quotaRecord = 2000    // bytes of a record that compression does not make smaller
	quotaTotal  = 5000    // records, which a batch may have all at once
)

// relayQuota measures how much of a byte quota a relay uses. The value is that of the second half of the time: at first
// the brokers let the bytes of ten seconds through, and then abort a batch that was too large.
func relayQuota(ctx context.Context, s *session) (outcome, error) {
	bootstrap, err := s.broker()
	if err != nil {
		return outcome{}, err
	}
	lasts := min(time.Minute, time.Duration(s.records)*time.Millisecond)
	var o outcome
	err = s.round(func(r *round) error {
		log := new(es.Mem)
		for stream := range 10 {
			events := make([]es.Record, quotaTotal/10)
			for i := range events {
				events[i] = es.Record{Type: "e", Data: make([]byte, quotaRecord)}
				_, _ = crand.Read(events[i].Data) // never fails
			}
			name := es.Stream{Kind: "account", ID: fmt.Sprint(stream)}
			if _, err := log.Append(ctx, es.Append{Stream: name, Expected: es.AnyVersion, Events: events}); err != nil {
				return err
			}
		}
		prefix := "quota-" + crand.Text()[:8]
		if err := s.kafka.Quota(ctx, prefix, quotaBytes); err != nil {
			return err
		}
		relay := &kafka.Relay{
			Log: log, Prefix: prefix, Encoding: kafka.Compact, Topics: kafka.Topics{Partitions: 6},
			Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": bootstrap, "client.id": prefix}},
		}
		running, cancel := context.WithTimeout(ctx, lasts)
		defer cancel()
		half := make(chan int64, 1)
		go func() {
			select {
			case <-time.After(lasts / 2):
			case <-running.Done():
			}
			half <- relay.Stats().Records
		}()
		if err := relay.Run(running); !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the relay ended: %w", err)
		}
		after, stats := <-half, relay.Stats()
		used := func(records int64, in time.Duration) float64 {
			return float64(records) * quotaRecord / quotaBytes / in.Seconds()
		}
		whole, second := used(stats.Records, lasts), used(stats.Records-after, lasts/2)
		o = outcome{value: second, details: []string{
			fmt.Sprintf("%d records in %v\t%.2f of the quota in all of it", stats.Records, lasts, whole),
			fmt.Sprintf("%d transactions, %d retries\tat most %d bytes", stats.Transactions, stats.Retries, stats.BatchBytes),
		}}
		return nil
	})
	return o, err
}
