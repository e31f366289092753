package es_test

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// CBOR is a binary form of the same Go types. The log began with JSON, whose events have other names.
func ExampleNewCodec() {
	codec := es.NewCodec("application/cbor", map[string]account.Event{
		"opened.cbor": account.Opened{}, "deposited.cbor": account.Deposited{}, "withdrawn.cbor": account.Withdrawn{},
		"closed.cbor": account.Closed{}, "declined.cbor": account.Declined{},
	}, cbor.Marshal, cbor.Unmarshal).Fallback(account.Codec)

	r, err := codec.Encode(account.Deposited{Amount: 7})
	fmt.Printf("%s %x %v\n", r.Type, r.Data, err)
	for _, r := range []es.Record{r, {Type: "deposited", Data: []byte(`{"Amount":5}`)}} {
		event, err := codec.Decode(r)
		fmt.Printf("%s: %+v %v\n", codec.ContentType(r), event, err)
	}

	// Output:
	// deposited.cbor a166416d6f756e7407 <nil>
	// application/cbor: {Amount:7} <nil>
	// application/json: {Amount:5} <nil>
}
