package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/thalo-go/es"
)

type park struct {
	List  parkList  `cmd:"" help:"List the records that projections have put aside."`
	Retry parkRetry `cmd:"" help:"Have the parked records of a stream tried again, in order, until one fails."`
	Drop  parkDrop  `cmd:"" help:"Give up on the first of the parked records of a stream, and try the others."`
}

type parkList struct {
	Projection string `arg:"" optional:"" help:"Only those of this one."`
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
	Yes        bool   `help:"Do it: the read model is emptied, and is not complete before all records were applied again."`
}

// A parkedObject is a parked record as programs get it.
type parkedObject struct {
	Projection string       `json:"projection"`
	Version    int          `json:"version"`
	Record     recordObject `json:"record"`
	Error      string       `json:"error,omitempty"` // none for one that waits behind another of its stream
	Attempts   int          `json:"attempts"`
	At         time.Time    `json:"at"`
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
			if err := s.out.object(parkedObject{p.Name, p.Version, asObject(p.Record), p.Error, p.Attempts, p.At}); err != nil {
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
			s.out.line("    waits behind another of its stream")
		} else {
			s.out.line("    attempt %d failed at %s: %s", p.Attempts, timestamp(p.At), printable(p.Error))
		}
	}
	if empty && !s.out.json {
		s.out.line("Nothing is parked.")
	}
	return nil
}

// Run is called by kong.
func (v *parkRetry) Run(s *session) error {
	return s.ask(v.Projection, v.Stream, "the parked records of %s are tried again", func(db database, name string, version int, stream es.Stream) error {
		return db.Retry(s.ctx, name, version, stream)
	})
}

// Run is called by kong.
func (v *parkDrop) Run(s *session) error {
	return s.ask(v.Projection, v.Stream, "the first parked record of %s is dropped, and the others are tried again", func(db database, name string, version int, stream es.Stream) error {
		return db.Drop(s.ctx, name, version, stream)
	})
}

// ask has something done about the parked records of a stream, by whoever runs the projection.
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
		return fmt.Errorf("the read model of %s would be emptied, and what is parked dropped, until all records were applied again: give --yes if that is meant", printable(v.Projection))
	}
	return s.write(func(db database) error {
		if err := db.Rebuild(s.ctx, name, version); err != nil {
			return err
		}
		return s.asked(db, "it begins anew", name, version)
	})
}

// An askedObject says what was asked for, for programs.
type askedObject struct {
	Projection string `json:"projection"`
	Version    int    `json:"version"`
	Asked      string `json:"asked"`
	Running    bool   `json:"running"` // somebody runs it, and does so soon
}

// asked says what happens next.
func (s *session) asked(db database, what, name string, version int) error {
	shards, err := db.Status(s.ctx)
	if err != nil {
		return err
	}
	running := false
	for _, p := range shards {
		running = running || p.Name == name && p.Version == version && p.Worker != ""
	}
	if s.out.json {
		return s.out.object(askedObject{name, version, what, running})
	}
	when := "now: es status tells how far it is"
	if !running {
		when = "when somebody runs it, which nobody does now"
	}
	s.out.line("%s: %s, %s.", printable(projectionName(name, version)), what, when)
	return nil
}

// write opens the store to be written. It must be there: a name that is misspelt makes no new one.
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
