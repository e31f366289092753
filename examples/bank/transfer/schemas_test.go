package transfer_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/transfer"
)

func TestSchemas(t *testing.T) { estest.TestSchemas(t, transfer.Codec, "testdata/events.json") }
