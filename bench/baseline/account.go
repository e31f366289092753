package baseline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// Accounts runs the bank's commands the way most programs do. It loads the whole stream, decides and appends, and repeats all of it on a
// conflict. Decoding is a hand-written switch over the types. The rules are the same as in the toolkit's side.
//
// It leaves out a cache of states, which would have to handle the writes of other processes. It also leaves out snapshots, a bound on the
// retries, command ids, metadata, and renamed and retired events.
type Accounts struct{ Store Store }

// A Store is the part of an event store that Accounts uses.
type Store interface {
	// Append appends events after a version. It returns [ErrConflict] if the stream has another version.
	Append(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error
	// Read calls see with each event of a stream after a version, in order.
	Read(ctx context.Context, stream es.Stream, after es.Version, see func(version es.Version, name string, data []byte) error) error
}

// Load returns an account and its version.
func (s Accounts) Load(ctx context.Context, id string) (account.Account, es.Version, error) {
	var a account.Account
	var at es.Version
	err := s.Store.Read(ctx, es.Stream{Kind: "account", ID: id}, 0, func(version es.Version, name string, data []byte) error {
		event, err := decode(name, data)
		if err != nil {
			return err
		}
		a, at = account.Rules{}.Evolve(a, event), version
		return nil
	})
	return a, at, err
}

// Execute runs a command and repeats it until its append has no conflict.
//
// It retries at once. Random pauses between the tries do not make it faster. With 64 callers on one account, pauses of up to 1, 5 and 30 ms
// resulted in 0.8, 0.9 and 1.05 times the rate.
func (s Accounts) Execute(ctx context.Context, id string, command account.Command) (account.Account, error) {
	for {
		a, version, err := s.Load(ctx, id)
		if err != nil {
			return a, err
		}
		events, err := account.Rules{}.Decide(a, command)
		if err != nil || len(events) == 0 {
			return a, err
		}
		records := make([]es.Record, len(events))
		for i, event := range events {
			if records[i], err = encode(event); err != nil {
				return a, err
			}
			a = account.Rules{}.Evolve(a, event)
		}
		err = s.Store.Append(ctx, es.Stream{Kind: "account", ID: id}, version, records)
		if !errors.Is(err, ErrConflict) {
			return a, err
		}
		if err := ctx.Err(); err != nil {
			return a, err
		}
	}
}

func encode(event account.Event) (es.Record, error) {
	r := es.Record{}
	switch event.(type) {
	case account.Opened:
		r.Type = "opened"
	case account.Deposited:
		r.Type = "deposited"
	case account.Withdrawn:
		r.Type = "withdrawn"
	case account.Closed:
		r.Type = "closed"
	default:
		return r, fmt.Errorf("baseline: no name for %T", event)
	}
	var err error
	r.Data, err = json.Marshal(event)
	return r, err
}

func decode(name string, data []byte) (account.Event, error) {
	switch name {
	case "opened":
		return unmarshal[account.Opened](data)
	case "deposited":
		return unmarshal[account.Deposited](data)
	case "withdrawn":
		return unmarshal[account.Withdrawn](data)
	case "closed":
		return unmarshal[account.Closed](data)
	}
	return nil, fmt.Errorf("baseline: no type for %q", name)
}

func unmarshal[T account.Event](data []byte) (account.Event, error) {
	var event T
	err := json.Unmarshal(data, &event)
	return event, err
}
