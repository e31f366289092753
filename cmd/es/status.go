package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type status struct{}

// A leaseObject is a lease as programs get it.
type leaseObject struct {
	Lease  string    `json:"lease"`
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
	Note   string    `json:"note,omitempty"`
}

// A projectionObject is a shard of a projection as programs get it.
type projectionObject struct {
	Projection string            `json:"projection"`
	Version    int               `json:"version"`
	Shard      string            `json:"shard"`
	Source     string            `json:"source"`
	Cursor     projection.Cursor `json:"cursor"`
	Head       es.Position       `json:"head"`   // -1 if the source is not this log
	Lag        int64             `json:"lag"`    // positions; -1 as well
	Behind     float64           `json:"behind"` // seconds; -1 as well
	CaughtUp   bool              `json:"caught_up"`
	Worker     string            `json:"worker,omitempty"`
	Parked     int               `json:"parked"`
	Error      string            `json:"error,omitempty"`
	ErrorAt    *time.Time        `json:"error_at,omitempty"`
}

// Run is called by kong.
func (v *status) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	head, err := es.Head(s.ctx, db)
	if err != nil {
		return err
	}
	shards, err := db.Status(s.ctx)
	if err != nil {
		return err
	}
	leases, err := db.ListLeases(s.ctx)
	if err != nil {
		return err
	}
	if s.out.json {
		return statusObjects(s.out, shards, leases)
	}
	s.out.line("store      %s, id %s, position %d\n", printable(db.where()), db.ID(), head)
	printShards(s.out, shards)
	printLeases(s.out, leases)
	return nil
}

func statusObjects(out *output, shards []projection.Status, leases []es.Lease) error {
	for _, p := range shards {
		o := projectionObject{
			Projection: p.Name, Version: p.Version, Shard: p.Shard, Source: p.Source, Cursor: p.Cursor, Head: p.Head, Lag: p.Lag, Behind: p.Behind,
			CaughtUp: p.CaughtUp, Worker: p.Worker, Parked: p.Parked, Error: p.Error,
		}
		if p.Error != "" {
			o.ErrorAt = &p.ErrorAt
		}
		if err := out.object(o); err != nil {
			return err
		}
	}
	for _, l := range leases {
		if err := out.object(leaseObject{l.Name, l.Holder, l.Until, l.Note}); err != nil {
			return err
		}
	}
	return nil
}

func printShards(out *output, shards []projection.Status) {
	if len(shards) == 0 {
		out.line("No projection or reaction was ever run.")
		return
	}
	out.line("PROJECTION                SHARD     CURSOR       LAG  BEHIND    PARKED  WORKER")
	for _, p := range shards {
		lag, behind, worker := "-", "-", p.Worker
		if p.Head >= 0 {
			lag, behind = fmt.Sprint(p.Lag), time.Duration(p.Behind*float64(time.Second)).Round(time.Millisecond).String()
		}
		if worker == "" {
			worker = "NOBODY"
		}
		out.line("%-24s  %-6s  %8d  %8s  %-8s  %6d  %s", printable(projectionName(p.Name, p.Version)), printable(p.Shard), p.Cursor, lag, behind, p.Parked, printable(worker))
		if p.Error != "" {
			out.line("    %s  %s", timestamp(p.ErrorAt), printable(p.Error))
		}
		if p.Head >= 0 && p.Cursor > projection.Cursor(p.Head) {
			out.line("    its checkpoint is beyond the end of the log: es verify says what to do")
		}
	}
}

func printLeases(out *output, leases []es.Lease) {
	if len(leases) == 0 {
		return
	}
	out.line("\nLEASE                     UNTIL                        HOLDER")
	for _, l := range leases {
		out.line("%-24s  %s  %s", printable(l.Name), timestamp(l.Until), printable(l.Holder))
		if l.Note != "" {
			out.line("    %s", printable(l.Note))
		}
	}
}

// projectionName is how people write a read model: balances, and balances@2 if it has a version.
func projectionName(name string, version int) string {
	if version == 0 {
		return name
	}
	return fmt.Sprintf("%s@%d", name, version)
}
