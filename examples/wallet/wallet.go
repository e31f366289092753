// Package wallet has rules whose events are protocol buffers. The state is a plain Go value, so that it can be kept in a snapshot.
package wallet

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/protobuf"
)

// Codec maps the events to their stored names.
var Codec = protobuf.New(map[string]proto.Message{
	"opened":   (*walletpb.Opened)(nil),
	"received": (*walletpb.Received)(nil),
	"spent":    (*walletpb.Spent)(nil),
})

// Wallet is the state. Its zero value was never opened.
type Wallet struct {
	Owner string
	Cents int64
}

// Command is a request.
type Command interface {
	decide(w Wallet) ([]proto.Message, error)
}

// Commands.
type (
	Open    struct{ Owner string }
	Receive struct {
		Cents int64
		Card  string
		At    time.Time
	}
	Spend struct {
		Cents int64
		Items []string
	}
)

// Rules decide on commands and evolve the state by events.
type Rules struct{}

// Decide implements es.Aggregate.
func (Rules) Decide(w Wallet, c Command) ([]proto.Message, error) { return c.decide(w) }

// Evolve implements es.Aggregate. It takes values out of an event and does not keep the message.
func (Rules) Evolve(w Wallet, event proto.Message) Wallet {
	switch e := event.(type) {
	case *walletpb.Opened:
		w.Owner = e.GetOwner()
	case *walletpb.Received:
		w.Cents += e.GetCents()
	case *walletpb.Spent:
		w.Cents -= e.GetCents()
	}
	return w
}

func (c Open) decide(w Wallet) ([]proto.Message, error) {
	if w.Owner != "" {
		return nil, es.Invariant("WALLET_OPEN", "the wallet of %s is open", w.Owner)
	}
	return []proto.Message{&walletpb.Opened{Owner: c.Owner}}, nil
}

func (c Receive) decide(w Wallet) ([]proto.Message, error) {
	if w.Owner == "" {
		return nil, es.Invariant("WALLET_NOT_OPEN", "there is no such wallet")
	}
	return []proto.Message{&walletpb.Received{Cents: c.Cents, Source: &walletpb.Received_Card{Card: c.Card}, At: timestamppb.New(c.At)}}, nil
}

func (c Spend) decide(w Wallet) ([]proto.Message, error) {
	if c.Cents > w.Cents {
		return nil, es.Invariant("WALLET_EMPTY", "there are %d cents", w.Cents)
	}
	return []proto.Message{&walletpb.Spent{Cents: c.Cents, Items: c.Items, Reason: walletpb.Reason_REASON_PURCHASE}}, nil
}
