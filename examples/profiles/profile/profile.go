// Package profile is the rules of profiles whose e-mail addresses can be erased. Commands, events and the state have sealed values, so the
// rules, and all that is stored of them, never see an address.
package profile

import (
	"context"
	"iter"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sealed"
)

// Kind is the kind of the streams.
const Kind = "profile"

// Email is an address that only the holder of the keys can read.
type Email = sealed.Value[string]

// Profile is the state. Its zero value was never registered.
type Profile struct {
	Registered, Forgotten bool
	Email                 Email
}

// Command is one of Register, ChangeEmail and Forget.
type Command interface {
	decide(p Profile) ([]Event, error)
}

// Commands.
type (
	// Register creates a profile.
	Register struct{ Email Email }

	// ChangeEmail replaces the address.
	ChangeEmail struct{ Email Email }

	// Forget erases the addresses of a profile, once and for all. Its event is the record of that in the log. A reaction to it destroys the key.
	Forget struct{}
)

// Event is one of Registered, EmailChanged and Forgotten.
type Event interface {
	evolve(p Profile) Profile
}

// Events.
type (
	Registered   struct{ Email Email }
	EmailChanged struct{ Email Email }
	Forgotten    struct{}
)

// Codec maps the events to their stored names.
var Codec = es.JSON(map[string]Event{
	"registered":    Registered{},
	"email-changed": EmailChanged{},
	"forgotten":     Forgotten{},
})

// Rules decide on commands and evolve the state by events.
type Rules struct{}

// Decide implements es.Aggregate.
func (Rules) Decide(p Profile, c Command) ([]Event, error) {
	if _, forget := c.(Forget); p.Forgotten && !forget {
		return nil, es.Invariant("FORGOTTEN", "the profile was erased: register another")
	}
	return c.decide(p)
}

// Evolve implements es.Aggregate.
func (Rules) Evolve(p Profile, e Event) Profile { return e.evolve(p) }

func (c Register) decide(p Profile) ([]Event, error) {
	if p.Registered {
		return nil, es.Invariant("REGISTERED", "the profile is registered already")
	}
	return []Event{Registered(c)}, nil
}

func (c ChangeEmail) decide(p Profile) ([]Event, error) {
	if !p.Registered {
		return nil, es.Invariant("NOT_REGISTERED", "register the profile first")
	}
	return []Event{EmailChanged(c)}, nil
}

func (Forget) decide(p Profile) ([]Event, error) {
	switch {
	case p.Forgotten:
		return nil, nil
	case !p.Registered:
		return nil, es.Invariant("NOT_REGISTERED", "there is no such profile")
	}
	return []Event{Forgotten{}}, nil
}

func (e Registered) evolve(p Profile) Profile   { return Profile{Registered: true, Email: e.Email} }
func (e EmailChanged) evolve(p Profile) Profile { p.Email = e.Email; return p }
func (Forgotten) evolve(p Profile) Profile      { return Profile{Registered: p.Registered, Forgotten: true} }

// Subject returns whose key seals the values of a profile.
func Subject(id string) string { return Kind + "/" + id }

// Seal seals an address for a command on a profile. What is decided about its text is decided here, such as its spelling.
func Seal(ctx context.Context, keys sealed.Keys, id, email string) (Email, error) {
	return sealed.Seal(ctx, keys, Subject(id), strings.ToLower(strings.TrimSpace(email)))
}

// Erased returns the subjects that a log says were erased, for sealed.Enforce.
func Erased(ctx context.Context, log es.Log) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for r, err := range log.All(ctx, 0, es.Filter{Kinds: []string{Kind}, Types: []string{"forgotten"}}) {
			if !yield(Subject(r.Stream.ID), err) || err != nil {
				return
			}
		}
	}
}
