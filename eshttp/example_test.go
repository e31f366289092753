package eshttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
	"github.com/thalo-go/es/projection/memory"
)

// A client sends a request twice, because it did not get the first response. Then it sends another that the rules refuse.
func Example() {
	counters := newCounters(new(es.Mem))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /counters/{id}", func(w http.ResponseWriter, r *http.Request) {
		options, err := eshttp.Options(r)
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		result, err := counters.Execute(r.Context(), r.PathValue("id"), 7, options...)
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		eshttp.SetVersion(w, result.Version)
		eshttp.SetPosition(w, result.Position)
		_, _ = fmt.Fprintln(w, result.State)
	})
	for _, key := range []string{"k1", "k1", "k2"} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/counters/a", http.NoBody)
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Print(w.Code, " ", w.Header().Get("ETag"), " ", w.Body)
	}
	// Output:
	// 200 "1" 7
	// 200 "1" 7
	// 422  {"title":"Unprocessable Entity","status":422,"detail":"7 and 7 are above 9","code":"TOO_MANY"}
}

// A page shows messages as they are written. In the browser: new EventSource("/messages").onmessage = e => show(e.data)
func ExampleEvents() {
	log := new(es.Mem)
	mux := http.NewServeMux()
	mux.Handle("GET /messages", eshttp.Events(log, es.Filter{Kinds: []string{"chat"}}, func(r es.Record) ([]byte, error) {
		return r.Data, nil
	}))
	server := httptest.NewServer(mux)
	defer server.Close()

	_, err := log.Append(context.Background(), es.Append{Stream: es.Stream{Kind: "chat", ID: "1"}, Events: []es.Record{{Type: "said", Data: []byte("hello")}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/messages", http.NoBody)
	if err != nil {
		fmt.Println(err)
		return
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	event := make([]byte, len("id: 1\ndata: hello\n"))
	if _, err := io.ReadFull(response.Body, event); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(strings.TrimSpace(string(event)))
	// Output:
	// id: 1
	// data: hello
}

// A service runs until it is interrupted. The server ends first, so the projection still runs while its last requests wait for it.
func ExampleServe() { //nolint:testableexamples // it runs until it is interrupted
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	store := memory.New(new(es.Mem))
	balances := memory.Projection{
		Name:   "balances",
		Handle: func(context.Context, *memory.Tx, []es.Record) error { return nil },
	}
	mux := http.NewServeMux()
	mux.Handle("GET /health/", eshttp.Health(store))
	mux.HandleFunc("GET /balances", func(w http.ResponseWriter, r *http.Request) {
		if err := eshttp.WaitFor(r, store, "balances"); err != nil {
			eshttp.Error(w, r, err)
			return
		}
		_, _ = fmt.Fprintln(w, "all that the client has written")
	})
	err := es.Run(ctx,
		func(ctx context.Context) error { return store.Project(ctx, balances) },
		eshttp.Serve(&http.Server{Addr: ":8080", Handler: mux}),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
