package main

import (
	"encoding/json"
	"net/http"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
	"github.com/thalo-go/es/examples/orders/shop"
	"github.com/thalo-go/es/projection"
)

// overview is the read model of all orders.
func overview() projection.SQLProjection {
	d := projection.NewDocuments("orders", shop.OrderCodec, shop.OrderRules{}.Evolve)
	return projection.SQLProjection{
		Name: "orders", Version: 1, Filter: es.Filter{Kinds: []string{shop.KindOrder}}, Lease: lease, Prepare: d.Prepare, Handle: d.Handle,
	}
}

// row is an order in the read model.
type row struct {
	ID         string `json:"Order"`
	shop.Order        // its fields
}

// orders returns the read model, with all that the client has written.
func orders(r *http.Request, store projection.Database) (list []row, err error) {
	if err := eshttp.WaitFor(r, store, "orders"); err != nil {
		return nil, err
	}
	for found, err := range store.Query(r.Context(), "select key, state from orders order by key") {
		var next row
		var state []byte
		if err == nil {
			err = found.Scan(&next.ID, &state)
		}
		if err == nil {
			err = json.Unmarshal(state, &next.Order)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, next)
	}
	return list, nil
}
