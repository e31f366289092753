package shop_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/orders/shop"
)

func TestSchemas(t *testing.T) {
	estest.TestSchemas(t, shop.OrderCodec, "testdata/orders.json")
	estest.TestSchemas(t, shop.StockCodec, "testdata/stock.json")
}
