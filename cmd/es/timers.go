package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type timers struct {
	Reaction string `arg:"" help:"The reaction, as es status names it."`
	Limit    int    `short:"n" default:"100" help:"How many at most; 0 lists all (100)."`
}

// Run is called by kong.
func (v *timers) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	n := 0
	for timer, err := range db.Timers(s.ctx, v.Reaction) {
		if err != nil {
			return err
		}
		if n++; v.Limit > 0 && n > v.Limit {
			if !s.out.json {
				s.out.line("... and more: give --limit 0")
			}
			return nil
		}
		if s.out.json {
			if err := s.out.object(timer); err != nil {
				return err
			}
			continue
		}
		if n == 1 {
			s.out.line("DUE                          POSITION  RECORD")
		}
		s.out.line("%s  %8s  %s", timestamp(timer.Due), strconv.FormatInt(int64(timer.Record.Position), 10), printable(timer.Record.ID()))
	}
	if n > 0 {
		return nil
	}
	states, err := db.Status(s.ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(states, func(st projection.Status) bool { return st.Name == v.Reaction }) {
		return fmt.Errorf("%w: there is no reaction %s: es status lists them", es.ErrInvalid, v.Reaction)
	}
	if !s.out.json {
		s.out.line("No timer waits.")
	}
	return nil
}

// dueLine describes the timers of a shard at a time.
func dueLine(waiting int, next, now time.Time) string {
	text := strconv.Itoa(waiting) + " timers wait, the earliest is due at " + timestamp(next)
	if late := now.Sub(next); late > 0 {
		text += ", overdue by " + late.Round(time.Millisecond).String()
	}
	return text
}
