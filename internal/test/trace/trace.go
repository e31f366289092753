// Package trace judges what processes that share flushes on Postgres have done, transaction by transaction.
//
// The rules are those of the state machine in package model, whose random walks are judged here as well: all walks of the protocol are
// accepted, and some walk of each broken protocol is rejected.
package trace

import (
	"errors"
	"fmt"
)

// The statements that a transaction may be of.
const (
	Leave    = "leave"
	Serve    = "serve"
	Append   = "append" // directly
	Resolve  = "resolve"
	Withdraw = "withdraw"
	Sweep    = "sweep"
)

// A Transaction has committed. Its order is that in which transactions had the lock; one that leaves a request has no lock, and is before all
// that have seen the request.
type Transaction struct {
	Run      int // of the server, as a crash empties the tables
	By       string
	Left     []Request
	Removed  []int64         // tickets of requests
	Answered map[int64]int64 // by ticket, the answer to a request of another process; negative if nothing was written
	Wrote    []Event
	Fenced   []int64
}

// A Request lies in the table until it is served or withdrawn.
type Request struct {
	Ticket int64
	Events int64 // its tokens are the ticket plus 1 up to this
}

func (r Request) has(token int64) bool { return token > r.Ticket && token <= r.Ticket+r.Events }

// An Event is in the log. Name is that of its append, which has no other event.
type Event struct {
	Token int64
	Name  string
}

// An Outcome is what the caller of an append was told.
type Outcome int

// The outcomes.
const (
	Written Outcome = 1 + iota
	NotWritten
	Unknown
)

// Batch is the largest number of events of a batch.
const Batch = 1 << 14

// Checker follows a trace. Its zero value has seen nothing.
type Checker struct {
	run     int
	left    map[int64]Request
	ever    map[int64]bool // tickets that were left
	fences  []int64
	tokens  map[int64]bool
	written map[string]bool
	told    map[string]Outcome
}

func (c *Checker) init() {
	if c.told == nil {
		c.left, c.ever, c.tokens = make(map[int64]Request), make(map[int64]bool), make(map[int64]bool)
		c.written, c.told = make(map[string]bool), make(map[string]Outcome)
	}
}

// Told notes what the caller of an append was told, and returns an error if that was wrong.
func (c *Checker) Told(name string, o Outcome) error {
	c.init()
	c.told[name] = o
	switch is := c.written[name]; {
	case o == Written && !is:
		return fmt.Errorf("%s was told as written and is not there", name)
	case o == NotWritten && is:
		return fmt.Errorf("%s was told as not written and is there", name)
	}
	return nil
}

// Commit notes a transaction, and returns an error if the protocol does not allow it.
func (c *Checker) Commit(t Transaction) error {
	c.init()
	if t.Run != c.run {
		c.run = t.Run
		clear(c.left)
	}
	served, err := c.serves(t)
	errs := []error{err}
	for _, e := range t.Wrote {
		errs = append(errs, c.wrote(e))
	}
	c.fences = append(c.fences, t.Fenced...)
	for _, ticket := range t.Removed {
		if _, lies := c.left[ticket]; !lies {
			errs = append(errs, fmt.Errorf("request %d was removed and did not lie there", ticket))
		}
		if !served[ticket] && t.By != Sweep && !c.fenced(ticket+1) {
			errs = append(errs, fmt.Errorf("request %d was removed by %s without a fence", ticket, t.By))
		}
		delete(c.left, ticket)
	}
	for ticket := range served {
		if _, lies := c.left[ticket]; lies {
			errs = append(errs, fmt.Errorf("request %d was served and still lies there", ticket))
		}
	}
	for _, r := range t.Left {
		if c.ever[r.Ticket] {
			errs = append(errs, fmt.Errorf("request %d was left twice", r.Ticket))
		}
		c.left[r.Ticket], c.ever[r.Ticket] = r, true
	}
	return errors.Join(errs...)
}

// serves returns the requests that a transaction has served.
func (c *Checker) serves(t Transaction) (served map[int64]bool, err error) {
	var errs []error
	if t.By != Serve {
		if len(t.Answered) > 0 {
			errs = append(errs, fmt.Errorf("%s has left an answer", t.By))
		}
		if len(t.Wrote) > 0 && t.By != Append {
			errs = append(errs, fmt.Errorf("%s has written events", t.By))
		}
		return nil, errors.Join(errs...)
	}
	served = make(map[int64]bool)
	wrote := make(map[int64]bool)
	for _, e := range t.Wrote {
		found := false
		for ticket, r := range c.left {
			if r.has(e.Token) {
				found, served[ticket], wrote[ticket] = true, true, true
			}
		}
		if !found {
			errs = append(errs, fmt.Errorf("the event of %s was served without a request", e.Name))
		}
	}
	own := 0
	for _, ticket := range t.Removed {
		if _, answered := t.Answered[ticket]; !answered {
			own++
			served[ticket] = true // its own, which may be written or not
		}
	}
	for ticket := range wrote {
		if _, answered := t.Answered[ticket]; !answered && own == 0 {
			own++ // it was not removed, which is an error of its own
		}
	}
	if own > 1 {
		errs = append(errs, fmt.Errorf("%d requests were served and only %d of them got an answer", own+len(t.Answered), len(t.Answered)))
	}
	for ticket, start := range t.Answered {
		served[ticket] = true
		if _, lies := c.left[ticket]; !lies {
			errs = append(errs, fmt.Errorf("request %d got an answer and did not lie there", ticket))
		}
		if start >= 0 != wrote[ticket] {
			errs = append(errs, fmt.Errorf("request %d got the answer %d; written: %v", ticket, start, wrote[ticket]))
		}
	}
	return served, errors.Join(errs...)
}

func (c *Checker) wrote(e Event) error {
	var errs []error
	if c.tokens[e.Token] {
		errs = append(errs, fmt.Errorf("token %d was written twice", e.Token))
	}
	if c.written[e.Name] {
		errs = append(errs, fmt.Errorf("%s was written twice", e.Name))
	}
	if c.told[e.Name] == NotWritten {
		errs = append(errs, fmt.Errorf("%s was told as not written, and was written later", e.Name))
	}
	if c.fenced(e.Token) {
		errs = append(errs, fmt.Errorf("%s was written under a token that is fenced off", e.Name))
	}
	c.tokens[e.Token], c.written[e.Name] = true, true
	return errors.Join(errs...)
}

// fenced reports whether a fence is just below a token.
func (c *Checker) fenced(token int64) bool {
	for _, f := range c.fences {
		if token > f && token <= f+Batch {
			return true
		}
	}
	return false
}
