package main

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/postgres"
)

// sourcePostgres compares building a count-and-sum read model from a topic of six partitions with a consumer that only
// reads, with the same headers.
func sourcePostgres(ctx context.Context, s *session) (outcome, error) {
	bootstrap, err := s.broker()
	if err != nil {
		return outcome{}, err
	}
	return once(3, func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		records := min(backlog, r.session.records)
		log := new(es.Mem)
		if err := work.FillAccounts(ctx, log, records/10, 10); err != nil {
			return ours, theirs, err
		}
		p := newRelaying(r, log, records, bootstrap, kafka.Compact)
		if err := p.begin(ctx); err != nil {
			return ours, theirs, err
		}
		if err := p.publish(ctx); err != nil {
			return ours, theirs, err
		}
		if err := p.end(); err != nil {
			return ours, theirs, err
		}
		store, plain, err := pgBoth(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		source, err := kafka.SourceConfig{Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": bootstrap}}, Topics: []string{p.topic()}}.Open(ctx)
		if err != nil {
			return ours, theirs, err
		}
		r.cleanup(source.Close)
		ours = work.Rebuilds("Source", plain, records, work.Projecting(store.Project, postgres.Projection{
			Name: "sums", Source: source, Prepare: work.PreparePostgres, Handle: work.PostgresSums(false),
		}))
		theirs = measure.Side{Name: "bare consumer", Callers: 1, Units: records, Op: func(ctx context.Context, _ int) error {
			return readOnly(ctx, bootstrap, p.topic(), records)
		}}
		return ours, theirs, nil
	})(ctx, s)
}

// readOnly reads the given number of messages and does nothing with them.
func readOnly(ctx context.Context, bootstrap, topic string, records int) error {
	c, err := newReader(bootstrap, topic)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for n := range records {
		if _, err := c.ReadMessage(30 * time.Second); err != nil {
			return fmt.Errorf("read %d of %d messages: %w", n, records, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
