package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

type why struct {
	Projection string `arg:"" help:"The projection or reaction, as es status names it: balances, or balances@2; or the lease of a relay."`
}

// Run is called by kong.
func (v *why) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	leases, err := db.ListLeases(s.ctx)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(leases, func(l es.Lease) bool { return l.Name == v.Projection }); i >= 0 {
		return v.ofLease(s, leases[i])
	}
	name, version := parseProjection(v.Projection)
	cause, err := db.Why(s.ctx, name, version)
	if err != nil {
		return err
	}
	return s.out.cause(v.Projection, cause)
}

// ofLease says what a relay says about itself in the note of its lease.
func (v *why) ofLease(s *session, l es.Lease) error {
	c := projection.Cause{Message: "its holder " + l.Holder + " says: " + l.Note}
	if left := time.Until(l.Until); left < 0 {
		c = projection.Cause{
			Code: projection.CauseNoWorker, Since: l.Until, Message: fmt.Sprintf("holder %s has died, or cannot write to the database; its last note was: %s", l.Holder, l.Note),
			Remedy: "start a program that runs it",
		}
	}
	return s.out.cause(v.Projection, c)
}

// causeObject is the JSON of a cause.
type causeObject struct {
	Name  string           `json:"name"`
	Cause projection.Cause `json:"cause"`
}

// cause writes a cause.
func (o *output) cause(name string, c projection.Cause) error {
	if o.json {
		return o.object(causeObject{name, c})
	}
	where := printable(name)
	if c.Shard != "" {
		where += " " + printable(c.Shard)
	}
	o.line("%s: %s", where, printable(c.Message))
	if !c.Since.IsZero() {
		o.line("    since %s", timestamp(c.Since))
	}
	if c.Remedy != "" {
		o.line("    what to do: %s", printable(c.Remedy))
	}
	return nil
}
