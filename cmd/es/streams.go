package main

import (
	"errors"
	"time"

	"github.com/thalo-go/es"
)

type streams struct {
	Kind string `short:"k" help:"Only streams of this kind."`
}

type streamObject struct {
	Stream   string      `json:"stream"`
	Version  es.Version  `json:"version"`
	Position es.Position `json:"position"` // of the last event
	Time     time.Time   `json:"time"`     // of the last event
}

// Run is called by kong.
func (v *streams) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if !s.out.json {
		s.out.line(" VERSION  POSITION  LAST EVENT                   STREAM")
	}
	for h, err := range db.streams(s.ctx, v.Kind) {
		if err != nil {
			return err
		}
		if s.out.json {
			if err := s.out.object(streamObject{h.stream.String(), h.version, h.position, h.time}); err != nil {
				return err
			}
			continue
		}
		s.out.line("%8d  %8d  %s  %s", h.version, h.position, timestamp(h.time), printable(h.stream.String()))
	}
	return nil
}
