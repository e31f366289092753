package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type park struct {
	List  parkList  `cmd:"" help:"List the parked records."`
	Retry parkRetry `cmd:"" help:"Retry the parked records of a stream, in order, until one fails."`
	Drop  parkDrop  `cmd:"" help:"Give up on the first parked record of a stream, and retry the others."`
}

type parkList struct {
	Projection string `arg:"" optional:"" help:"Only those of this projection."`
}

type parkRetry struct {
	Projection string `arg:"" help:"The projection, as es status names it: balances, or balances@2."`
	Stream     string `arg:"" help:"The stream, as kind/id."`
}

type parkDrop struct {
	Projection string `arg:"" help:"The projection, as es status names it: balances, or balances@2."`
	Stream     string `arg:"" help:"The stream, as kind/id."`
}

type rebuild struct {
	Projection string `arg:"" help:"The projection, as es status names it: balances, or balances@2."`
	Yes        bool   `help:"Confirm: the read model is emptied, and is incomplete until all records have been applied again."`
}

// Run is called by kong.
func (v *parkList) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	empty := true
	for p, err := range db.Parked(s.ctx) {
		if err != nil {
			return err
		}
		name := projectionName(p.Name, p.Version)
		if v.Projection != "" && name != v.Projection {
			continue
		}
		if s.out.json {
			if err := s.out.object(p); err != nil {
				return err
			}
			continue
		}
		if empty {
			s.out.line("PROJECTION                %s", recordHeader)
		}
		empty = false
		s.out.line("%-24s  %s", printable(name), recordLine(p.Record))
		if p.Error == "" {
			s.out.line("    waits behind another record of its stream")
		} else {
			s.out.line("    attempt %d failed at %s: %s", p.Attempts, timestamp(p.At), printable(p.Error))
		}
	}
	if empty && !s.out.json {
		s.out.line("No record is parked.")
	}
	return nil
}

// Run is called by kong.
func (v *parkRetry) Run(s *session) error {
	return s.ask(v.Projection, v.Stream, "retry of the parked records of %s requested", func(db database, name string, version int, stream es.Stream) error {
		return db.Retry(s.ctx, name, version, stream)
	})
}

// Run is called by kong.
func (v *parkDrop) Run(s *session) error {
	return s.ask(v.Projection, v.Stream, "drop of the first parked record of %s requested", func(db database, name string, version int, stream es.Stream) error {
		return db.Drop(s.ctx, name, version, stream)
	})
}

// ask requests a retry or a drop from the worker of the projection.
func (s *session) ask(projection, streamName, what string, do func(db database, name string, version int, stream es.Stream) error) error {
	name, version := parseProjection(projection)
	stream, err := es.ParseStream(streamName)
	if err != nil {
		return err
	}
	return s.write(func(db database) error {
		if err := do(db, name, version, stream); err != nil {
			return err
		}
		return s.asked(db, fmt.Sprintf(what, printable(streamName)), name, version)
	})
}

// Run is called by kong.
func (v *rebuild) Run(s *session) error {
	name, version := parseProjection(v.Projection)
	if !v.Yes {
		return fmt.Errorf("rebuild empties the read model of %s and drops its parked records: confirm with --yes", printable(v.Projection))
	}
	return s.write(func(db database) error {
		if err := db.Rebuild(s.ctx, name, version); err != nil {
			return err
		}
		return s.asked(db, "rebuild requested", name, version)
	})
}

// askedObject is the JSON of a request.
type askedObject struct {
	Projection string `json:"name"`
	Version    int    `json:"version"`
	Asked      string `json:"requested"`
	Running    bool   `json:"running"` // whether a worker carries it out now
}

// asked prints what was requested and when it will be done.
func (s *session) asked(db database, what, name string, version int) error {
	shards, err := db.Status(s.ctx)
	if err != nil {
		return err
	}
	running, inline := false, false
	for _, p := range shards {
		if p.Name == name && p.Version == version {
			inline = p.Worker == projection.InlineWorker
			running = running || p.Worker != "" && !inline
		}
	}
	if s.out.json {
		return s.out.object(askedObject{name, version, what, running})
	}
	when := "a worker carries it out now: see es status"
	switch {
	case inline:
		when = "the next append of a program with it inline carries it out"
	case !running:
		when = "no worker is running: the next run carries it out"
	}
	s.out.line("%s: %s; %s.", printable(projectionName(name, version)), what, when)
	return nil
}

// write opens the store for writing. It opens it read-only first, so that a misspelt name does not create a database.
func (s *session) write(work func(db database) error) error {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if db, err = s.open(false); err != nil {
		return err
	}
	return errors.Join(work(db), db.Close())
}

// parseProjection is the inverse of projectionName.
func parseProjection(text string) (name string, version int) {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		if version, err := strconv.Atoi(text[at+1:]); err == nil {
			return text[:at], version
		}
	}
	return text, 0
}
