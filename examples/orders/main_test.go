package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/orders/shop"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/sqlite"
	"github.com/thalo-go/es/stores"
)

const (
	limit = 200 * time.Millisecond
	cups  = 100_000
)

func TestMain(m *testing.M) {
	child.Main(map[string]child.Func{"shop": runShop})
	os.Exit(m.Run())
}

// runShop runs the shop on a file in a child process, places orders and pays every third.
func runShop(ctx context.Context, args []string) error {
	path := args[0]
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, path, "localhost:0", limit) }()
	store, err := sqlite.Open(path)
	if err != nil {
		return err
	}
	p := shop.NewProcess(store, limit)
	for n := 0; ; n++ {
		select {
		case err := <-ended:
			return err
		default:
		}
		id := fmt.Sprintf("%d-%d", os.Getpid(), n)
		if _, err := p.Orders.Execute(ctx, id, shop.Place{Item: "cup", Quantity: 1}); err != nil {
			return err
		}
		if n%3 > 0 {
			continue
		}
		if _, err := p.Orders.Execute(ctx, id, shop.Pay{}); err != nil && !strings.Contains(err.Error(), "NOT_OPEN") {
			return err
		}
	}
}

// The shop is killed again and again. In the end each order is paid or has expired, once, and no cup is lost or reserved twice.
func TestTheShopIsKilledAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.db")
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := shop.NewProcess(store, limit)
	if _, err := p.Stock.Execute(t.Context(), "cup", shop.Add{Quantity: cups}); err != nil {
		t.Fatal(err)
	}
	kills := 5
	if testing.Short() {
		kills = 1
	}
	for range kills {
		before := expired(t, store)
		running := child.Start(t, "shop", path)
		eventually.True(t, "orders expire", func() bool { return expired(t, store) > before+10 })
		time.Sleep(rand.N(50 * time.Millisecond)) // not synchronization: a random moment for the kill
		running.Stop()
	}
	eventually.True(t, "no order is open", func() bool {
		before := head(t, store)
		for _, r := range p.Reactions() {
			r.Once = true
			if err := store.React(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		return head(t, store) == before && check(t, store, p) == 0
	})
}

func head(t *testing.T, store *sqlite.Store) es.Position {
	t.Helper()
	at, err := es.Head(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func expired(t *testing.T, store *sqlite.Store) (n int) {
	t.Helper()
	for _, err := range store.All(t.Context(), 0, es.Filter{Types: []string{"expired"}}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// check compares orders and stock, and returns how many orders are open.
func check(t *testing.T, store *sqlite.Store, p shop.Process) (open int) {
	t.Helper()
	ends := make(map[string]int)
	for r, err := range store.All(t.Context(), 0, es.Filter{Kinds: []string{shop.KindOrder}}) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Type == "placed" {
			ends[r.Stream.ID] += 0
		} else {
			ends[r.Stream.ID]++
		}
	}
	stock, err := p.Stock.Load(t.Context(), "cup")
	if err != nil {
		t.Fatal(err)
	}
	for id, n := range ends {
		if n == 0 {
			open++
			continue
		}
		at, err := p.Orders.Load(t.Context(), id)
		if want := at.State.Stage == shop.StagePaid; err != nil || n > 1 || want != (stock.State.Reserved[id] == 1) {
			t.Fatalf("order %s has ended %d times, as %q, with %d cups reserved, %v", id, n, at.State.Stage, stock.State.Reserved[id], err)
		}
	}
	if stock.State.Free+len(stock.State.Reserved) != cups {
		t.Fatalf("%d cups are free and %d reserved: want %d together", stock.State.Free, len(stock.State.Reserved), cups)
	}
	return open
}

func TestWeb(t *testing.T) {
	store, err := stores.Open(t.Context(), "mem:")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := shop.NewProcess(store, time.Hour)
	handler := web(store, p)
	position := ""
	request := func(method, path, body string, want int, text string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		if method == http.MethodPost {
			r.Header.Set("Idempotency-Key", path)
		} else {
			r.Header.Set("Es-Position", position)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want || !strings.Contains(w.Body.String(), text) {
			t.Errorf("%s %s: %d %s: want %d %s", method, path, w.Code, w.Body, want, text)
		}
		if at := w.Header().Get("Es-Position"); at != "" {
			position = at
		}
	}
	request("POST", "/stock/cup", `{"Quantity": 10}`, http.StatusOK, `"Free":10`)
	request("POST", "/stock/cup", `{"Quantity": 10}`, http.StatusOK, `"Free":10`) // the same request
	request("POST", "/orders/1", `{"Item": "cup", "Quantity": 2}`, http.StatusOK, "placed")
	request("POST", "/orders/2", `{`, http.StatusBadRequest, "body")
	request("POST", "/orders/2/pay", "", http.StatusUnprocessableEntity, "NOT_OPEN")
	request("POST", "/orders/1/pay", "", http.StatusOK, "paid")
	list := overview()
	list.Once = true
	if err := store.Project(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	request("GET", "/orders", "", http.StatusOK, `[{"Order":"1","Item":"cup","Quantity":2,"Stage":"paid"}]`)
}

func TestOverview(t *testing.T) {
	store, err := stores.Open(t.Context(), "mem:")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	records := estest.Records(t, shop.OrderCodec, "order/1", []shop.OrderEvent{shop.Placed{Item: "cup", Quantity: 2}, shop.Expired{}})
	estest.Project(t, store, overview(), append(records, estest.Records(t, shop.OrderCodec, "order/2", []shop.OrderEvent{shop.Placed{Item: "pot", Quantity: 1}})...))
	list, err := orders(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/orders", http.NoBody), store)
	want := []row{{"1", shop.Order{Item: "cup", Quantity: 2, Stage: shop.StageExpired}}, {"2", shop.Order{Item: "pot", Quantity: 1, Stage: shop.StagePlaced}}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("got %v, %v: want %v", list, err, want)
	}
}
