package account_test

import (
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestSchemas(t *testing.T) { estest.TestSchemas(t, account.Codec, "testdata/events.json") }
