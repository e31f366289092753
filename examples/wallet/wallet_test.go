package wallet_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/wallet"
	"github.com/thalo-go/es/examples/wallet/walletpb"
)

func TestSpend(t *testing.T) {
	filled := estest.For(t, wallet.Rules{}).Given(&walletpb.Opened{Owner: "Ada"}, &walletpb.Received{Cents: 100})

	filled.When(wallet.Spend{Cents: 30, Items: []string{"tea"}}).
		Then(&walletpb.Spent{Cents: 30, Items: []string{"tea"}, Reason: walletpb.Reason_REASON_PURCHASE}).
		ThenState(wallet.Wallet{Owner: "Ada", Cents: 70})
	filled.When(wallet.Spend{Cents: 101}).
		ThenCode("WALLET_EMPTY")
	filled.When(wallet.Open{Owner: "Bob"}).
		ThenCode("WALLET_OPEN")
}

func TestCodec(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 7, 5, 4, 3, 2, 0, time.UTC))
	estest.TestCodec(t, wallet.Codec, []proto.Message{
		&walletpb.Opened{Owner: "Ada"},
		&walletpb.Received{Cents: 1, Source: &walletpb.Received_Card{Card: "1234"}, At: at},
		&walletpb.Received{Source: &walletpb.Received_Transfer{Transfer: &walletpb.Transfer{Wallet: "b", Notes: map[string]string{"for": "tea"}}}},
		&walletpb.Spent{Cents: 1, Items: []string{"tea"}, Reason: walletpb.Reason_REASON_FEE, Card: "1234"},
	})
}

func TestSchemas(t *testing.T) { estest.TestSchemas(t, wallet.Codec, "testdata/events.json") }
