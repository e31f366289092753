package conformance_test

import (
	"context"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
	"github.com/thalo-go/es/projection"
)

const (
	kindRefused   = "projection and reaction cannot share a name"
	filterRefused = "changed filter is refused"
	rebuildRefuse = "Rebuild refuses what it would apply twice"
	refilterEnds  = "Refilter ends the runs with the filter before"
	refilterPast  = "Refilter replays the past that a filter adds"
	renameMoves   = "Rename moves the checkpoint and the parked records"
	replayAgain   = "Replay handles again what comes after a place"
)

func (w workshop) brokenIdentities() []defect[conformance.Listed] {
	return []defect[conformance.Listed]{
		w.broken("the kind is not kept with the checkpoint", kindRefused, tampering("update es_projections set kind = ''")),
		w.broken("the filter is not kept with the checkpoint", filterRefused, tampering("update es_projections set filter = ''",
			"create trigger broken after update of filter on es_projections begin update es_projections set filter = ''; end")),
		w.broken("Rebuild accepts everything", rebuildRefuse, func(f *faultySide) {
			f.onRebuild = func(ctx context.Context, name string, version int) error {
				_ = f.Store.Rebuild(ctx, name, version)
				return nil
			}
		}),
		w.broken("Refilter does nothing", refilterEnds, func(f *faultySide) {
			f.onRefilter = func(context.Context, string, int, es.Filter, projection.Past) error { return nil }
		}).blocking(),
		w.broken("Refilter replays the past unasked", refilterEnds, func(f *faultySide) {
			f.onRefilter = func(ctx context.Context, name string, version int, filter es.Filter, _ projection.Past) error {
				return f.Store.Refilter(ctx, name, version, filter, projection.ReplayPast)
			}
		}),
		w.broken("Refilter skips the past", refilterPast, func(f *faultySide) {
			f.onRefilter = func(ctx context.Context, name string, version int, filter es.Filter, _ projection.Past) error {
				return f.Store.Refilter(ctx, name, version, filter, projection.SkipPast)
			}
		}),
		w.broken("Refilter replays what the old filter let through too", refilterPast,
			tampering("create trigger broken after update of replaced on es_projections begin update es_projections set replaced = '{\"kinds\":[\"\"]}'; end")),
		w.broken("Rename forgets the parked records", renameMoves,
			tampering("create trigger broken after update of name on es_parked begin delete from es_parked; end")),
		w.broken("Rename begins from the beginning", renameMoves,
			tampering("create trigger broken after update of name on es_shards begin update es_shards set cursor = 0; end")),
		w.broken("Replay begins at the beginning", replayAgain, func(f *faultySide) {
			f.onReplay = func(ctx context.Context, name string, version int, _ projection.Start) error {
				return f.Store.Replay(ctx, name, version, projection.Beginning())
			}
		}),
	}
}
