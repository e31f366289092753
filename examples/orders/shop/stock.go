package shop

import (
	"maps"

	"github.com/thalo-go/es"
)

// Stock is the state of the stock of one item.
type Stock struct {
	Free     int
	Reserved map[string]int // by order
}

// StockCommand is a request, StockEvent is what happened.
type (
	StockCommand interface {
		decide(Stock) ([]StockEvent, error)
	}
	StockEvent interface{ apply(Stock) Stock }
)

// Add is the shop's command. Reserve and Release are those of the process.
type (
	Add     struct{ Quantity int }
	Reserve struct {
		Order    string
		Quantity int
	}
	Release struct{ Order string }
)

// The events. Short answers a Reserve for which there is too little.
type (
	Added    Add
	Reserved Reserve
	Short    Reserve
	Released struct{ Order string }
)

// StockCodec maps the events to their stored names.
var StockCodec = es.JSON(map[string]StockEvent{"added": Added{}, "reserved": Reserved{}, "short": Short{}, "released": Released{}})

// StockRules decide on commands and evolve the state by events.
type StockRules struct{}

// Decide implements es.Aggregate.
func (StockRules) Decide(s Stock, c StockCommand) ([]StockEvent, error) { return c.decide(s) }

// Evolve implements es.Aggregate.
func (StockRules) Evolve(s Stock, e StockEvent) Stock { return e.apply(s) }

func (c Add) decide(Stock) ([]StockEvent, error) { return []StockEvent{Added(c)}, nil }

func (c Reserve) decide(s Stock) ([]StockEvent, error) {
	if c.Quantity > s.Free {
		return []StockEvent{Short(c)}, nil
	}
	return []StockEvent{Reserved(c)}, nil
}

func (c Release) decide(s Stock) ([]StockEvent, error) {
	if s.Reserved[c.Order] == 0 {
		return nil, nil
	}
	return []StockEvent{Released(c)}, nil
}

func (e Added) apply(s Stock) Stock { s.Free += e.Quantity; return s }
func (Short) apply(s Stock) Stock   { return s }

func (e Reserved) apply(s Stock) Stock {
	reserved := maps.Clone(s.Reserved)
	if reserved == nil {
		reserved = make(map[string]int)
	}
	reserved[e.Order] = e.Quantity
	return Stock{s.Free - e.Quantity, reserved}
}

func (e Released) apply(s Stock) Stock {
	reserved := maps.Clone(s.Reserved)
	delete(reserved, e.Order)
	return Stock{s.Free + s.Reserved[e.Order], reserved}
}
