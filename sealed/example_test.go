package sealed_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/thalo-go/es/sealed"
)

// Registered is an event. It holds the address as ciphertext, wherever it is stored or published.
type Registered struct{ Email sealed.Value[string] }

func Example() {
	ctx := context.Background()
	db, err := sql.Open("sqlite3", "file:example?mode=memory&cache=shared") // not that of the log
	if err != nil {
		panic(err)
	}
	defer db.Close()
	keys, err := sealed.SQLKeys(ctx, db, [32]byte{1}) // 32 random bytes, such as from a secret manager
	if err != nil {
		panic(err)
	}

	email, err := sealed.Seal(ctx, keys, "user/42", "ann@example.com")
	if err != nil {
		panic(err)
	}
	event := Registered{email}

	text, err := event.Email.Open(ctx, keys)
	fmt.Println(text, err)

	if err := keys.Erase(ctx, "user/42"); err != nil {
		panic(err)
	}
	_, err = event.Email.Open(ctx, keys)
	fmt.Println(errors.Is(err, sealed.ErrErased))
	_, err = sealed.Seal(ctx, keys, "user/42", "late@example.com")
	fmt.Println(errors.Is(err, sealed.ErrErased))
	// Output:
	// ann@example.com <nil>
	// true
	// true
}
