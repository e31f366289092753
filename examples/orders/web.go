package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
	"github.com/thalo-go/es/examples/orders/shop"
	"github.com/thalo-go/es/projection"
)

// web returns the handler of the shop. A request with an Idempotency-Key takes effect once.
func web(store projection.Database, p shop.Process) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /health/", eshttp.Health(store))
	mux.HandleFunc("POST /stock/{id}", serve[shop.Add](p.Stock))
	mux.HandleFunc("POST /orders/{id}", serve[shop.Place](p.Orders))
	mux.HandleFunc("POST /orders/{id}/pay", serve[shop.Pay](p.Orders))
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		list, err := orders(r, store)
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		answer(w, list)
	})
	return mux
}

// serve returns a handler that executes a command, whose fields are in the body of the request.
func serve[D, S, C, E any](repo *es.Repo[S, C, E]) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var command D
		options, err := eshttp.Options(r)
		if bad := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&command); bad != nil && r.ContentLength != 0 {
			err = fmt.Errorf("%w: the body: %w", es.ErrInvalid, bad)
		}
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		result, err := repo.Execute(r.Context(), r.PathValue("id"), any(command).(C), options...)
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		eshttp.SetVersion(w, result.Version)
		eshttp.SetPosition(w, result.Position)
		answer(w, result.State)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}
