package schema_test

import (
	"context"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/schema"
)

func ExampleJSON() {
	schemas, err := schema.JSON(account.Codec)
	fmt.Printf("%s\n%v\n", schemas["deposited"], err)
	// Output:
	// {
	// 	"$schema": "https://json-schema.org/draft/2020-12/schema",
	// 	"properties": {
	// 		"Amount": {
	// 			"maximum": 9223372036854775807,
	// 			"minimum": -9223372036854775808,
	// 			"type": "integer"
	// 		}
	// 	},
	// 	"required": [
	// 		"Amount"
	// 	],
	// 	"title": "deposited",
	// 	"type": "object"
	// }
	// <nil>
}

func ExampleCheck() {
	ctx, log := context.Background(), new(es.Mem)
	_, err := log.Append(ctx, es.Append{Stream: es.Stream{Kind: "account", ID: "ann"}, Events: []es.Record{
		{Type: "opened", Data: []byte(`{"Owner":"Ann"}`)}, {Type: "deposited", Data: []byte(`{"Amount":"much"}`)},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	checked, err := schema.Check(ctx, log, account.Codec, 100, "account")
	fmt.Println(checked.Read, checked.Decoded, checked.Missing)
	fmt.Println(err)
	// Output:
	// 2 map[opened:1] [closed declined withdrawn]
	// schema: position 2: es: decode account/ann/2, type "deposited": json: cannot unmarshal string into Go struct field Deposited.Amount of type int64
}
