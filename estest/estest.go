// Package estest tests what is written against package es: rules, codecs and stores.
//
// # Rules
//
// Rules are pure functions, so their tests are sentences: given these events, when this command comes, then those events follow.
// A whole test file of a bank account:
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
//			account.Opened{Owner: "Ann"}, account.Deposited{Amount: 1}, account.Withdrawn{Amount: 1}, account.Closed{},
//		})
//	}
//
// [For] also checks on the way that the rules are pure, which a [github.com/thalo-go/es.Repo] relies on.
package estest
