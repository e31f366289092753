package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/otel"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics)
	mux.Handle("GET /health/", eshttp.Health(s.store))
	mux.HandleFunc("POST /accounts/{id}", s.traced("POST /accounts", s.deposit))
	mux.HandleFunc("GET /balances", s.traced("GET /balances", s.balances))
	return mux
}

// traced continues the trace of the client. Package otelhttp does the same.
func (s *service) traced(name string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := s.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		h(w, r.WithContext(ctx))
	}
}

// deposit opens the account if it is new, and pays in.
func (s *service) deposit(w http.ResponseWriter, r *http.Request) {
	var d account.Deposit
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	options, err := eshttp.Options(r)
	if err != nil {
		eshttp.Error(w, r, err)
		return
	}
	id := r.PathValue("id")
	if _, err := s.accounts.Execute(r.Context(), id, account.Open{Owner: id}, es.CommandID("open")); err != nil {
		eshttp.Error(w, r, err)
		return
	}
	result, err := s.accounts.Execute(r.Context(), id, d, options...)
	if err != nil {
		eshttp.Error(w, r, err)
		return
	}
	eshttp.SetVersion(w, result.Version)
	eshttp.SetPosition(w, result.Position)
	_ = json.NewEncoder(w).Encode(result.State) // the client has gone
}

// project keeps the read model until ctx is done.
func (s *service) project(ctx context.Context) error {
	return s.store.Project(ctx, otel.Projection(s.tracer, sqlite.Projection{
		Name: "balances", Filter: es.Filter{Kinds: []string{"account"}},
		Prepare: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "drop table if exists balances; create table balances (id text primary key, cents integer) strict")
			return err
		},
		Handle: projection.Each(account.Codec, func(ctx context.Context, tx *sql.Tx, r es.Record, event account.Event) error {
			var cents int64
			switch e := event.(type) {
			case account.Deposited:
				cents = e.Amount
			case account.Withdrawn:
				cents = -e.Amount
			}
			_, err := tx.ExecContext(ctx, "insert into balances values (?, ?) on conflict (id) do update set cents = cents + excluded.cents", r.Stream.ID, cents)
			return err
		}),
	}))
}

// balances lists what its client has changed too.
func (s *service) balances(w http.ResponseWriter, r *http.Request) {
	if err := eshttp.WaitFor(r, s.store, "balances"); err != nil {
		eshttp.Error(w, r, err)
		return
	}
	list := make(map[string]int64)
	rows, err := s.store.DB().QueryContext(r.Context(), "select id, cents from balances order by id limit 1000")
	if err != nil {
		eshttp.Error(w, r, err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var cents int64
		if err := rows.Scan(&id, &cents); err != nil {
			eshttp.Error(w, r, err)
			return
		}
		list[id] = cents
	}
	if err := rows.Err(); err != nil {
		eshttp.Error(w, r, err)
		return
	}
	_ = json.NewEncoder(w).Encode(list) // the client has gone
}
