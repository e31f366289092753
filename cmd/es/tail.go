package main

import (
	"errors"

	"github.com/thalo-go/es"
)

type tail struct {
	Follow bool     `short:"f" help:"Go on with what is appended, until interrupted."`
	Lines  int      `short:"n" default:"10" help:"How many of the last events to begin with (10)."`
	Kinds  []string `name:"kind" short:"k" sep:"none" help:"Only events of streams of this kind. May be repeated."`
	Types  []string `name:"type" short:"t" sep:"none" help:"Only events of this type. May be repeated."`
	Tags   []string `name:"tag" sep:"none" help:"Only events with this tag. May be repeated: events with all of them."`
	Form   form     `embed:""`
}

// Run is called by kong.
func (v *tail) Run(s *session) (err error) {
	if s.out.decoder, err = v.Form.decoder(s.stderr); err != nil {
		return err
	}
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	last, err := es.Head(s.ctx, db)
	if err != nil {
		return err
	}
	filter := es.Filter{Kinds: v.Kinds, Types: v.Types, Tags: v.Tags}
	records, err := v.last(s, db, last, filter)
	if err != nil {
		return err
	}
	if !s.out.json {
		s.out.line(recordHeader)
	}
	for _, r := range records {
		if err := s.out.record(r); err != nil {
			return err
		}
	}
	if !v.Follow {
		return nil
	}
	if err := s.out.flush(); err != nil {
		return err
	}
	for r, err := range es.Follow(s.ctx, db, last, filter) {
		if s.ctx.Err() != nil {
			return nil // interrupted, which is how it ends
		}
		if err != nil {
			return err
		}
		if err := errors.Join(s.out.record(r), s.out.flush()); err != nil {
			return err
		}
	}
	return nil
}

// last returns the last records up to a position that the filter lets through. It looks at twice as many positions until it has enough.
func (v *tail) last(s *session, log es.Log, upTo es.Position, filter es.Filter) ([]es.Record, error) {
	for span := es.Position(max(v.Lines, 1)); ; span *= 2 {
		var records []es.Record
		for r, err := range log.All(s.ctx, max(0, upTo-span), filter) {
			if err != nil {
				return nil, err
			}
			if r.Position > upTo {
				break
			}
			records = append(records, r)
			if len(records) > v.Lines {
				records = records[1:]
			}
		}
		if len(records) >= v.Lines || span >= upTo {
			return records, nil
		}
	}
}
