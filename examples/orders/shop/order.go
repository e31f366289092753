// Package shop has the rules of orders and of stock, and the process between them.
package shop

import "github.com/thalo-go/es"

// Order is the state of an order. Its zero value is an order that was never placed.
type Order struct {
	Item     string
	Quantity int
	Stage    Stage
}

// Stage is the stage of an order. An order that is placed becomes one of the others.
type Stage string

// The stages.
const (
	StagePlaced   Stage = "placed"
	StagePaid     Stage = "paid"
	StageRejected Stage = "rejected" // there was too little stock
	StageExpired  Stage = "expired"  // the payment did not come in time
)

// OrderCommand is a request, OrderEvent is what happened.
type (
	OrderCommand interface {
		decide(Order) ([]OrderEvent, error)
	}
	OrderEvent interface{ apply(Order) Order }
)

// Place and Pay are the customer's commands. Reject and Expire are those of the process.
type (
	Place struct {
		Item     string
		Quantity int
	}
	Pay    struct{}
	Reject struct{}
	Expire struct{}
)

// The events.
type (
	Placed   Place
	Paid     struct{}
	Rejected struct{}
	Expired  struct{}
)

// OrderCodec maps the events to their stored names.
var OrderCodec = es.JSON(map[string]OrderEvent{"placed": Placed{}, "paid": Paid{}, "rejected": Rejected{}, "expired": Expired{}})

// OrderRules decide on commands and evolve the state by events.
type OrderRules struct{}

// Decide implements es.Aggregate.
func (OrderRules) Decide(o Order, c OrderCommand) ([]OrderEvent, error) { return c.decide(o) }

// Evolve implements es.Aggregate.
func (OrderRules) Evolve(o Order, e OrderEvent) Order { return e.apply(o) }

func (c Place) decide(o Order) ([]OrderEvent, error) {
	switch {
	case o.Stage != "":
		return nil, es.Invariant("ORDER_EXISTS", "the order was placed before")
	case c.Quantity < 1 || c.Item == "":
		return nil, es.Invariant("NOTHING_ORDERED", "an order has an item and a quantity")
	}
	return []OrderEvent{Placed(c)}, nil
}

func (Pay) decide(o Order) ([]OrderEvent, error) {
	if o.Stage != StagePlaced {
		return nil, es.Invariant("NOT_OPEN", "the order is not open but %q", o.Stage)
	}
	return []OrderEvent{Paid{}}, nil
}

func (Reject) decide(o Order) ([]OrderEvent, error) { return o.end(Rejected{}), nil }
func (Expire) decide(o Order) ([]OrderEvent, error) { return o.end(Expired{}), nil }

// end ends an order that is still open. Otherwise the matter is settled, so there is nothing to do.
func (o Order) end(e OrderEvent) []OrderEvent {
	if o.Stage != StagePlaced {
		return nil
	}
	return []OrderEvent{e}
}

func (e Placed) apply(Order) Order   { return Order{e.Item, e.Quantity, StagePlaced} }
func (Paid) apply(o Order) Order     { o.Stage = StagePaid; return o }
func (Rejected) apply(o Order) Order { o.Stage = StageRejected; return o }
func (Expired) apply(o Order) Order  { o.Stage = StageExpired; return o }
