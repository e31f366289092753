package main

import (
	"errors"
	"fmt"

	"github.com/thalo-go/es"
)

type read struct {
	Stream string     `arg:"" help:"The stream, as kind/id: account/ann."`
	After  es.Version `help:"Only what comes after this version."`
	Tags   []string   `name:"tag" sep:"none" help:"Only events with this tag. May be repeated: events with all of them."`
	Form   form       `embed:""`
}

// Run is called by kong.
func (v *read) Run(s *session) (err error) {
	stream, err := es.ParseStream(v.Stream)
	if err != nil {
		return err
	}
	if s.out.decoder, err = v.Form.decoder(s.stderr); err != nil {
		return err
	}
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	empty := true
	for r, err := range db.Read(s.ctx, stream, v.After) {
		if err != nil {
			return err
		}
		if !(es.Filter{Tags: v.Tags}).Match(r) {
			continue
		}
		if empty && !s.out.json {
			s.out.line(recordHeader)
		}
		empty = false
		if err := s.out.record(r); err != nil {
			return err
		}
	}
	if empty && len(v.Tags) > 0 {
		return fmt.Errorf("%s has no events after version %d with all of the tags %q", printable(v.Stream), v.After, v.Tags)
	}
	if empty {
		return fmt.Errorf("%s has no events after version %d: es streams -k %s lists what there is", printable(v.Stream), v.After, printable(stream.Kind))
	}
	return nil
}
