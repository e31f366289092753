package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/bank/transfer"
	"github.com/thalo-go/es/schema"
	"github.com/thalo-go/es/stores"
)

// schemas writes an AsyncAPI document of the topics that the bank publishes.
func schemas(w io.Writer) error {
	accounts, err := schema.JSON(account.Codec)
	if err != nil {
		return err
	}
	transfers, err := schema.JSON(transfer.Codec)
	if err != nil {
		return err
	}
	document, err := schema.AsyncAPI("Bank", "1.0.0", map[string]map[string][]byte{"bank.account": accounts, "bank." + transfer.Kind: transfers})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", document)
	return err
}

// check decodes the newest events of each type in a store, such as before a new release of the program.
func check(ctx context.Context, w io.Writer, where string) (err error) {
	if where == "" {
		return errors.New("-check needs -store")
	}
	store, err := stores.Open(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	accounts, errAccounts := schema.Check(ctx, store, account.Codec, 100, "account")
	transfers, errTransfers := schema.Check(ctx, store, transfer.Codec, 100, transfer.Kind)
	if err := errors.Join(errAccounts, errTransfers); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "accounts: %d records read, decoded %v, not found %q\ntransfers: decoded %v, not found %q\n",
		accounts.Read, accounts.Decoded, accounts.Missing, transfers.Decoded, transfers.Missing)
	return err
}
