package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type status struct{}

// leaseObject is the JSON of a lease.
type leaseObject struct {
	Lease  string    `json:"lease"`
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
	Note   string    `json:"note,omitempty"`
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
		if err := out.object(p); err != nil {
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
		out.line("No projection or reaction has run.")
		return
	}
	out.line("PROJECTION                SHARD     CURSOR       LAG  AGE       PARKED  WORKER")
	for _, p := range shards {
		lag, age, worker := "-", "-", p.Worker
		if p.Lag != nil {
			lag, age = strconv.FormatInt(p.Lag.Positions, 10), p.Lag.Age.Round(time.Millisecond).String()
		}
		if worker == "" {
			worker = "NONE"
		}
		out.line("%-24s  %-6s  %8d  %8s  %-8s  %6d  %s", printable(projectionName(p.Name, p.Version)), printable(p.Shard), p.Cursor, lag, age, p.Parked, printable(worker))
		if p.Error != "" {
			out.line("    %s  %s", timestamp(p.ErrorAt), printable(p.Error))
		}
		if p.Worker == projection.InlineWorker && p.Lag != nil && p.Lag.Positions > 0 {
			out.line("    inline: the next append of a program with it applies the rest")
		}
		if p.Lag != nil && p.Lag.ClockAhead > 0 {
			out.line("    the time of the log is %v ahead of the clock: check the clocks; AGE is since the checkpoint moved", p.Lag.ClockAhead.Round(time.Second))
		}
		if p.Waiting > 0 {
			out.line("    %s", dueLine(p.Waiting, p.NextDue, time.Now()))
		}
		if p.NeedsType != "" {
			out.line("    waits for a worker that knows event type %s: run a release that does", printable(strconv.Quote(p.NeedsType)))
		}
		if p.Lag != nil && p.Cursor > projection.Cursor(p.Lag.Head) {
			out.line("    its checkpoint is beyond the end of the log: run es verify")
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

// projectionName returns balances, or balances@2 if there is a version.
func projectionName(name string, version int) string {
	if version == 0 {
		return name
	}
	return fmt.Sprintf("%s@%d", name, version)
}
