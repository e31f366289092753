package main

import (
	"errors"
	"fmt"

	"github.com/thalo-go/es"
)

type redactEvent struct {
	Stream  string     `arg:"" help:"The stream, as kind/id."`
	Version es.Version `arg:"" help:"The version of the event in its stream, as es read shows it."`
	Reason  string     `required:"" help:"Why, and who asked for it. It is kept in the stream, so leave out what is to be erased."`
	Yes     bool       `help:"Confirm: the content of the event and its copies in the store are gone for good."`
}

// redactedObject is the JSON of a redaction.
type redactedObject struct {
	Stream    string     `json:"stream"`
	Version   es.Version `json:"version"`
	Audit     es.Version `json:"audit"`
	Repeated  bool       `json:"repeated"`
	Snapshots int        `json:"snapshots"`
	Parked    int        `json:"parked"`
	Timers    int        `json:"timers"`
	Unreached []string   `json:"unreached"`
}

// Run is called by kong.
func (v *redactEvent) Run(s *session) error {
	stream, err := es.ParseStream(v.Stream)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s/%d", stream, v.Version)
	if !v.Yes {
		return errors.New("redact erases the content of " + printable(name) + " for good: confirm with --yes")
	}
	return s.write(func(db database) error {
		done, err := db.Redact(s.ctx, stream, v.Version, v.Reason)
		if err != nil {
			return err
		}
		if s.out.json {
			return s.out.object(redactedObject{stream.String(), v.Version, done.Audit, done.Repeated, done.Snapshots, done.Parked, done.Timers, done.Unreached})
		}
		if done.Repeated {
			s.out.line("%s: was redacted before, as version %d says. Nothing was changed.", printable(name), done.Audit)
		} else {
			s.out.line("%s: redacted. Version %d says so.", printable(name), done.Audit)
			s.out.line("Erased with it: %d snapshots, %d parked records. Timers that stay: %d.", done.Snapshots, done.Parked, done.Timers)
		}
		s.out.line("Not reached:")
		for _, copies := range done.Unreached {
			s.out.line("    %s", printable(copies))
		}
		return nil
	})
}
