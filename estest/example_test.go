package estest_test

import (
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/account"
)

// printer replaces the *testing.T of a test and prints failures.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Cleanup(func())                    {}
func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func ExampleFor() {
	t := printer{} // in a test, its t

	filled := estest.For(t, account.Rules{}).
		Given(account.Opened{Owner: "Ann"}, account.Deposited{Amount: 100})

	filled.When(account.Withdraw{Amount: 30}).Then(account.Withdrawn{Amount: 30})
	filled.When(account.Withdraw{Amount: 130}).Then(account.Withdrawn{Amount: 130})
	// Output:
	// When(account.Withdraw{Amount:130}) was refused: INSUFFICIENT_FUNDS: the balance is 100 cents, 130 requested
	// want the events
	// 	account.Withdrawn{Amount:130}
}

func ExampleTestCodec() {
	t := printer{} // in a test, its t

	type Renamed struct{ Name string }
	codec := es.JSON(map[string]any{"opened": account.Opened{}})
	estest.TestCodec(t, codec, []any{account.Opened{Owner: "Ann"}, Renamed{"Bob"}})
	// Output:
	// estest_test.Renamed{Name:"Bob"}: Encode returned es: encode: unknown event "estest_test.Renamed": add it to the codec, or Rename, Upcast or Retire it
}
