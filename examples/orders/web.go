package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/orders/shop"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// web returns the handler of the shop. A request with an Idempotency-Key takes effect once.
func web(store *sqlite.Store, p shop.Process) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /stock/{id}", serve(p.Stock, func() shop.Add { return shop.Add{} }))
	mux.HandleFunc("POST /orders/{id}", serve(p.Orders, func() shop.Place { return shop.Place{} }))
	mux.HandleFunc("POST /orders/{id}/pay", serve(p.Orders, func() shop.Pay { return shop.Pay{} }))
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		list, err := orders(r.Context(), store.DB())
		answer(w, list, err)
	})
	return mux
}

// serve returns a handler that executes a command, whose fields are in the body of the request.
func serve[S, C, E any, D any](repo *es.Repo[S, C, E], empty func() D) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d := empty()
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&d); err != nil && r.ContentLength != 0 {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var options []es.ExecuteOption
		if key := r.Header.Get("Idempotency-Key"); key != "" {
			options = append(options, es.CommandID("web/"+key))
		}
		result, err := repo.Execute(r.Context(), r.PathValue("id"), any(d).(C), options...)
		answer(w, result.State, err)
	}
}

func answer(w http.ResponseWriter, v any, err error) {
	var refused *es.InvariantError
	switch {
	case errors.As(err, &refused):
		http.Error(w, refused.Error(), http.StatusConflict)
	case errors.Is(err, es.ErrInvalid):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client has gone
	}
}

// row is an order in the read model.
type row struct {
	Order, Item string
	Quantity    int
	Stage       shop.Stage
}

// overview is the read model of all orders.
func overview() sqlite.Projection {
	return sqlite.Projection{
		Name: "orders", Filter: es.Filter{Kinds: []string{shop.KindOrder}},
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `drop table if exists orders;
				create table orders (id text primary key, item text, quantity integer, stage text) strict`)
			return err
		},
		Handle: projection.Each(shop.OrderCodec, func(ctx context.Context, tx *sql.Tx, r es.Record, event shop.OrderEvent) (err error) {
			if e, placed := event.(shop.Placed); placed {
				_, err = tx.ExecContext(ctx, "insert into orders values (?, ?, ?, 'placed')", r.Stream.ID, e.Item, e.Quantity)
			} else {
				_, err = tx.ExecContext(ctx, "update orders set stage = ? where id = ?", r.Type, r.Stream.ID) // the types are called as the stages
			}
			return err
		}),
	}
}

func orders(ctx context.Context, db *sql.DB) (list []row, err error) {
	rows, err := db.QueryContext(ctx, "select id, item, quantity, stage from orders order by id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.Order, &r.Item, &r.Quantity, &r.Stage); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}
