package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/sqlite"
)

func TestTheBankPrintsItsSchemas(t *testing.T) {
	var out bytes.Buffer
	if err := schemas(&out); err != nil {
		t.Fatal(err)
	}
	var document struct {
		Channels map[string]struct{ Messages map[string]any }
	}
	if err := json.Unmarshal(out.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Channels["bank.account"].Messages) != len(account.Codec.Names()) || len(document.Channels) != 2 {
		t.Errorf("the document is %s", out.String())
	}
}

func TestTheBankChecksItsStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bank.db")
	put := func(typ, data string) {
		t.Helper()
		store, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{{Type: typ, Data: []byte(data)}}}); err != nil {
			t.Fatal(err)
		}
	}
	put("opened", `{"Owner":"Ann"}`)
	var out bytes.Buffer
	if err := check(t.Context(), &out, path); err != nil || !strings.Contains(out.String(), "1 records read, decoded map[opened:1]") {
		t.Errorf("check printed %q, %v", out.String(), err)
	}
	put("deposited", `{"Amount":"much"}`)
	if err := check(t.Context(), &out, path); err == nil || !strings.Contains(err.Error(), "account/1/2") {
		t.Errorf("check returned %v, which does not name the damaged event", err)
	}
	if err := check(t.Context(), &out, ""); err == nil {
		t.Error("check needs no store")
	}
}
