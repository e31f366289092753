package protobuf_test

import (
	"context"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/wallet"
)

// The messages, rules and tests of the wallet are in examples/wallet.
func ExampleNew() {
	ctx, store := context.Background(), new(es.Mem)
	wallets := es.NewRepo(store, "wallet", wallet.Rules{}, wallet.Codec)
	for _, command := range []wallet.Command{
		wallet.Open{Owner: "Ada"},
		wallet.Receive{Cents: 500, Card: "1234", At: time.Date(2026, 7, 5, 4, 3, 2, 0, time.UTC)},
		wallet.Spend{Cents: 120, Items: []string{"tea"}},
	} {
		if _, err := wallets.Execute(ctx, "1", command); err != nil {
			fmt.Println(err)
			return
		}
	}
	for r, err := range store.Read(ctx, es.Stream{Kind: "wallet", ID: "1"}, 0) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %d bytes of %s\n", r.Type, len(r.Data), wallet.Codec.ContentType(r))
	}
	at, err := wallets.Load(ctx, "1")
	fmt.Println(at.State.Owner, at.State.Cents, err)

	// Output:
	// opened: 5 bytes of application/protobuf
	// received: 17 bytes of application/protobuf
	// spent: 9 bytes of application/protobuf
	// Ada 380 <nil>
}
