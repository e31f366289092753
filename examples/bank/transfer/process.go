package transfer

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
)

// Kind is the kind of transfer streams.
const Kind = "transfer"

// Process carries out transfers. Each event of a transfer causes a command on an account, whose answer is recorded as the next event.
//
// Each command is a step of its event, and an account answers every command with an event. A step may be repeated, because the
// process was killed before its checkpoint moved, or because another process took over. The repetition has the same result: the
// account does not move the money twice, and the transfer does not change course.
type Process struct {
	Transfers *es.Repo[Transfer, Command, Event]
	Accounts  *es.Repo[account.Account, account.Command, account.Event]

	// Limit is how long a transfer waits for its acceptance.
	Limit time.Duration

	// Unclaimed is the bank's account for money that can be neither delivered nor returned. It is never closed.
	Unclaimed string
}

// Reaction returns the process as a reaction.
func (p Process) Reaction(partitions int) projection.Reaction {
	return projection.Reaction{Name: "transfers", From: projection.Beginning(), Filter: es.Filter{Kinds: []string{Kind}}, Partitions: partitions, Handle: p.Handle}
}

// Expiry returns a reaction that turns transfers away whose time for acceptance has run out. The money is still with the transfer, which
// then returns it.
func (p Process) Expiry() projection.Reaction {
	return projection.Reaction{
		Name: "transfer-expiry", From: projection.Beginning(), Filter: es.Filter{Kinds: []string{Kind}, Types: []string{"taken"}},
		Due: func(r es.Record) (time.Time, error) { return r.Time.Add(p.Limit), nil },
		Handle: func(ctx context.Context, r es.Record) error {
			_, err := p.Transfers.Execute(ctx, r.Stream.ID, TimeOut{}, es.Step("time out"))
			return err
		},
	}
}

// Handle executes the step that one event of a transfer causes.
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
	case Taken, Accepted:
		if t.Stage != t.ready() {
			return nil // it waits for its acceptance
		}
		return p.step(ctx, r, t.To, account.Receive{Amount: t.Amount}, Brought{}, func(code string) Command { return Turned{code} })
	case Turned:
		code, err := p.do(ctx, t.From, account.Receive{Amount: t.Amount})
		back := t.From
		if err == nil && code != "" { // the sender's account was closed in the meantime
			back = p.Unclaimed
			code, err = p.do(ctx, back, account.Receive{Amount: t.Amount})
		}
		if err != nil {
			return err
		}
		if code != "" {
			return fmt.Errorf("%s: %d cents cannot be delivered: account %s declines them with %s: open it", r.Stream, t.Amount, back, code)
		}
		return p.record(ctx, r, Returned{back})
	}
	return nil
}

// step sends a command to an account and records the outcome.
func (p Process) step(ctx context.Context, r es.Record, id string, c account.Command, done Command, declined func(code string) Command) error {
	code, err := p.do(ctx, id, c)
	switch {
	case err != nil:
		return err
	case code != "":
		return p.record(ctx, r, declined(code))
	}
	return p.record(ctx, r, done)
}

// do sends a command to an account, which applies it once, and returns the code of its refusal, or "".
func (p Process) do(ctx context.Context, id string, c account.Command) (code string, err error) {
	result, err := p.Accounts.Execute(ctx, id, c, es.Step("move"))
	if err != nil {
		return "", err
	}
	if d, ok := result.Events[0].(account.Declined); ok {
		return d.Code, nil
	}
	return "", nil
}

func (p Process) record(ctx context.Context, r es.Record, c Command) error {
	_, err := p.Transfers.Execute(ctx, r.Stream.ID, c, es.Step("record"))
	return err
}
