package transfer

import (
	"context"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
)

// Kind is that of the streams of transfers.
const Kind = "transfer"

// A Process carries out transfers: each event of one leads to a command on an account, and its answer to the next event.
//
// Both commands have the identity of the event that they follow from, and an account answers with an event in any case. So a step that is done
// again, because the process was killed before it could note that it was done, or because another did it as well, comes to the same end:
// the account does not move the money twice, and the transfer does not take another way.
type Process struct {
	Transfers *es.Repo[Transfer, Command, Event]
	Accounts  *es.Repo[account.Account, account.Command, account.Event]

	// Unclaimed is the account of the bank's own that takes what can neither be brought nor returned. It is never closed.
	Unclaimed string
}

// Reaction returns what a store runs.
func (p Process) Reaction(partitions int) projection.Reaction {
	return projection.Reaction{Name: "transfers", Filter: es.Filter{Kinds: []string{Kind}}, Partitions: partitions, Handle: p.Handle}
}

// Handle does the step that follows from one event of a transfer.
func (p Process) Handle(ctx context.Context, r es.Record) error {
	event, err := Codec.Decode(r)
	if err != nil {
		return err
	}
	at, err := p.Transfers.LoadAt(ctx, r.Stream.ID, r.Version)
	if err != nil {
		return err
	}
	t := at.State
	switch event.(type) {
	case Asked:
		return p.step(ctx, r, t.From, account.Send{Amount: t.Amount}, Taken{}, func(code string) Command { return Refused{code} })
	case Taken:
		return p.step(ctx, r, t.To, account.Receive{Amount: t.Amount}, Brought{}, func(code string) Command { return Turned{code} })
	case Turned:
		code, err := p.do(ctx, r, t.From, account.Receive{Amount: t.Amount})
		back := t.From
		if err == nil && code != "" { // the sender has closed his account meanwhile
			back = p.Unclaimed
			code, err = p.do(ctx, r, back, account.Receive{Amount: t.Amount})
		}
		if err != nil {
			return err
		}
		if code != "" {
			return fmt.Errorf("%d cents of %s can go nowhere: %s declines them with %s: open it", t.Amount, r.Stream, back, code)
		}
		return p.say(ctx, r, Returned{back})
	}
	return nil
}

// step lets an account do something, and says how it went.
func (p Process) step(ctx context.Context, r es.Record, id string, c account.Command, done Command, declined func(code string) Command) error {
	code, err := p.do(ctx, r, id, c)
	switch {
	case err != nil:
		return err
	case code != "":
		return p.say(ctx, r, declined(code))
	}
	return p.say(ctx, r, done)
}

// do lets an account do something, once, and returns the code with which it declined, or "".
func (p Process) do(ctx context.Context, r es.Record, id string, c account.Command) (code string, err error) {
	result, err := p.Accounts.Execute(ctx, id, c, es.CommandID(r.ID()), es.CausedBy(r))
	if err != nil {
		return "", err
	}
	if d, ok := result.Events[0].(account.Declined); ok {
		return d.Code, nil
	}
	return "", nil
}

func (p Process) say(ctx context.Context, r es.Record, c Command) error {
	_, err := p.Transfers.Execute(ctx, r.Stream.ID, c, es.CommandID(r.ID()), es.CausedBy(r))
	return err
}
