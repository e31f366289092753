package main

import (
	"context"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
)

func inlineFigures() []figure {
	return []figure{
		{"pg-inline", "appends of one event by 128 writers, with an inline projection (one upsert per batch), against without", atLeast(0.6), rates(pgInline(128))},
	}
}

func pgInline(writers int) setUp {
	return func(ctx context.Context, r *round) (ours, theirs measure.Side, err error) {
		url, err := r.session.database(ctx, r)
		if err != nil {
			return ours, theirs, err
		}
		inline, err := postgres.Config{Inline: []postgres.Projection{work.Counts()}}.Open(ctx, url)
		if err != nil {
			return ours, theirs, err
		}
		r.cleanup(inline.Close)
		bare, _, err := r.session.pgStore(ctx, r) // in another database, so that both sides have only rows that they wrote
		if err != nil {
			return ours, theirs, err
		}
		return work.Appends("Append, inline", work.To(inline), writers, 1, payload), work.Appends("Append", work.To(bare), writers, 1, payload), nil
	}
}
