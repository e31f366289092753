package shop_test

import (
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/orders/shop"
)

func TestOrders(t *testing.T) {
	p := estest.NewProcess(t, time.Time{})
	orders := estest.Add(p, shop.KindOrder, shop.OrderRules{}, shop.OrderCodec)
	stock := estest.Add(p, shop.KindStock, shop.StockRules{}, shop.StockCodec)
	p.React(shop.Process{Orders: orders.Repo, Stock: stock.Repo, Limit: 15 * time.Minute}.Reactions()...)
	stock.Given("cup", shop.Added{Quantity: 3})
	place := func(id string, quantity int) {
		t.Helper()
		if err := orders.When(id, shop.Place{Item: "cup", Quantity: quantity}); err != nil {
			t.Fatal(err)
		}
	}

	place("1", 2)
	stock.Then("cup", shop.Reserved{Order: "1", Quantity: 2})
	place("2", 2)
	stock.ThenCommands("cup", shop.Reserve{Order: "2", Quantity: 2})
	orders.Then("2", shop.Placed{Item: "cup", Quantity: 2}, shop.Rejected{})
	p.Advance(14 * time.Minute)
	orders.Then("1")
	p.Advance(time.Minute)
	orders.Then("1", shop.Expired{})
	orders.ThenCommands("2", shop.Expire{})
	orders.Then("2")
	stock.Then("cup", shop.Released{Order: "1"})

	place("3", 3)
	if err := orders.When("3", shop.Pay{}); err != nil {
		t.Fatal(err)
	}
	p.Advance(time.Hour)
	orders.ThenCommands("3", shop.Expire{})
	orders.Then("3")
	stock.Then("cup")
}

func TestOrderRules(t *testing.T) {
	s := estest.For[shop.Order, shop.OrderCommand, shop.OrderEvent](t, shop.OrderRules{})
	s.When(shop.Place{}).ThenCode("NOTHING_ORDERED")
	s.When(shop.Pay{}).ThenCode("NOT_OPEN")
	placed := s.Given(shop.Placed{Item: "cup", Quantity: 1})
	placed.When(shop.Place{Item: "cup", Quantity: 1}).ThenCode("ORDER_EXISTS")
	placed.When(shop.Pay{}).Then(shop.Paid{})
	placed.Given(shop.Expired{}).When(shop.Pay{}).ThenCode("NOT_OPEN")
	placed.Given(shop.Paid{}).When(shop.Expire{}).ThenNothing()
}

func TestCodecs(t *testing.T) {
	estest.TestCodec(t, shop.OrderCodec, []shop.OrderEvent{shop.Placed{Item: "cup", Quantity: 1}, shop.Paid{}, shop.Rejected{}, shop.Expired{}})
	estest.TestCodec(t, shop.StockCodec, []shop.StockEvent{
		shop.Added{Quantity: 1}, shop.Reserved{Order: "1", Quantity: 1}, shop.Short{Order: "1", Quantity: 1}, shop.Released{Order: "1"},
	})
}

var _ es.Aggregate[shop.Stock, shop.StockCommand, shop.StockEvent] = shop.StockRules{}
