package main

import (
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type replay struct {
	Projection string    `arg:"" help:"The projection or reaction, as es status names it: balances, or balances@2."`
	After      *int64    `xor:"from" required:"" help:"Begin behind this position; 0 is the beginning."`
	Since      time.Time `xor:"from" required:"" help:"Begin with the first record of this time, as 2026-11-30T08:00:00Z."`
	Beginning  bool      `xor:"from" required:"" help:"Begin at the beginning: handle everything again."`
	Head       bool      `xor:"from" required:"" help:"Begin at the end of the log: what it has not handled yet is skipped, parked records and timers stay."`
	Yes        bool      `help:"Confirm: records that were handled before are handled again, or skipped."`
}

type refilter struct {
	Projection string   `arg:"" help:"The projection or reaction, as es status names it: balances, or balances@2."`
	Kinds      []string `help:"The kinds of streams of the new filter; none means all."`
	Types      []string `help:"The types of events of the new filter; none means all."`
	Tags       []string `name:"tag" sep:"none" help:"A tag that events of the new filter have. May be repeated."`
	Past       string   `required:"" enum:"skip,replay" help:"What happens to past records that the new filter adds: skip, or replay."`
}

type rename struct {
	Old string `arg:"" help:"The name, without a version."`
	New string `arg:"" help:"A name that is not in use."`
}

// Run is called by kong.
func (v *replay) Run(s *session) error {
	name, version := parseProjection(v.Projection)
	var from projection.Start
	switch {
	case !v.Yes && v.Head:
		return fmt.Errorf("replay has %s skip what it has not handled: confirm with --yes", printable(v.Projection))
	case !v.Yes:
		return fmt.Errorf("replay has %s handle records again: confirm with --yes", printable(v.Projection))
	case v.Head:
		from = projection.Head()
	case v.Beginning:
		from = projection.Beginning()
	case v.After != nil:
		from = projection.After(es.Position(*v.After))
	default:
		from = projection.Since(v.Since)
	}
	return s.write(func(db database) error {
		if err := db.Replay(s.ctx, name, version, from); err != nil {
			return err
		}
		return s.asked(db, "replay requested", name, version)
	})
}

// Run is called by kong.
func (v *refilter) Run(s *session) error {
	name, version := parseProjection(v.Projection)
	past := projection.SkipPast
	if v.Past == "replay" {
		past = projection.ReplayPast
	}
	return s.write(func(db database) error {
		if err := db.Refilter(s.ctx, name, version, es.Filter{Kinds: v.Kinds, Types: v.Types, Tags: v.Tags}, past); err != nil {
			return err
		}
		return s.asked(db, "changed filter accepted", name, version)
	})
}

// Run is called by kong.
func (v *rename) Run(s *session) error {
	return s.write(func(db database) error {
		if err := db.Rename(s.ctx, v.Old, v.New); err != nil {
			return err
		}
		return s.asked(db, "renamed from "+printable(v.Old), v.New, 0)
	})
}
