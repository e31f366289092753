package shop

import (
	"context"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// The kinds of streams.
const (
	KindOrder = "order"
	KindStock = "stock"
)

// Process reserves stock for orders. It rejects an order without stock, and releases the stock of an order that is not paid in time.
type Process struct {
	Orders *es.Repo[Order, OrderCommand, OrderEvent]
	Stock  *es.Repo[Stock, StockCommand, StockEvent]
	Limit  time.Duration // for the payment
}

// NewProcess returns the process on a store.
func NewProcess(store es.Store, limit time.Duration) Process {
	return Process{es.NewRepo(store, KindOrder, OrderRules{}, OrderCodec), es.NewRepo(store, KindStock, StockRules{}, StockCodec), limit}
}

// Reactions returns the process as reactions.
func (p Process) Reactions() []projection.Reaction {
	return []projection.Reaction{{
		Name: "order-stock", From: projection.Beginning(), Filter: es.Filter{Kinds: []string{KindOrder}}, Partitions: 4,
		Handle: projection.Typed(OrderCodec, p.reserve),
	}, {
		Name: "order-expiry", From: projection.Beginning(), Filter: es.Filter{Kinds: []string{KindOrder}, Types: []string{"placed"}}, Partitions: 4,
		Due: func(r es.Record) (time.Time, error) { return r.Time.Add(p.Limit), nil },
		Handle: func(ctx context.Context, r es.Record) error {
			_, err := p.Orders.Execute(ctx, r.Stream.ID, Expire{}, es.Step("expire")) // Decide: nothing to do if it is paid
			return err
		},
	}}
}

func (p Process) reserve(ctx context.Context, r es.Record, event OrderEvent) error {
	order := r.Stream.ID
	switch e := event.(type) {
	case Placed:
		result, err := p.Stock.Execute(ctx, e.Item, Reserve{order, e.Quantity}, es.Step("reserve"))
		if err != nil {
			return err
		}
		if _, short := result.Events[0].(Short); short {
			_, err = p.Orders.Execute(ctx, order, Reject{}, es.Step("reject"))
		}
		return err
	case Expired: // the compensation
		at, err := p.Orders.LoadAt(ctx, order, r.Version)
		if err == nil {
			_, err = p.Stock.Execute(ctx, at.State.Item, Release{order}, es.Step("release"))
		}
		return err
	}
	return nil
}
