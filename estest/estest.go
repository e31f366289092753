// Package estest tests the rules and codecs of an application. Package conformance beside it has the suites
// for implementations of stores, sources and projections.
//
// [For] tests rules without a store: given these events, a command has that outcome. [TestCodec] tests that events survive encoding,
// and [TestSchemas] that what was ever stored is still read.
// This is the complete test file of a bank account:
//
//	package account_test
//
//	import (
//		"testing"
//
//		"github.com/thalo-go/es/estest"
//		"github.com/thalo-go/es/examples/bank/account"
//	)
//
//	func TestWithdraw(t *testing.T) {
//		filled := estest.For(t, account.Rules{}).Given(account.Opened{Owner: "Ann"}, account.Deposited{Amount: 100})
//
//		filled.When(account.Withdraw{Amount: 30}).
//			Then(account.Withdrawn{Amount: 30}).
//			ThenState(account.Account{Owner: "Ann", Balance: 70, Open: true})
//		filled.When(account.Withdraw{Amount: 101}).
//			ThenCode("INSUFFICIENT_FUNDS")
//		filled.Given(account.Withdrawn{Amount: 100}, account.Closed{}).
//			When(account.Close{}).
//			ThenNothing()
//	}
//
//	func TestCodec(t *testing.T) {
//		estest.TestCodec(t, account.Codec, []account.Event{
//			account.Opened{Owner: "Ann"}, account.Deposited{Amount: 1}, account.Withdrawn{Amount: 1}, account.Closed{}, account.Declined{Code: "x"},
//		})
//	}
//
//	func TestSchemas(t *testing.T) { estest.TestSchemas(t, account.Codec, "testdata/events.json") }
//
// [For] also checks that the rules are pure, which a [github.com/thalo-go/es.Repo] relies on.
//
// [Project] tests read models: it applies the records of [Records] on a real database.
package estest
