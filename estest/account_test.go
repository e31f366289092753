package estest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/bank/account"
)

func TestWithdraw(t *testing.T) {
	filled := estest.For(t, account.Rules{}).Given(account.Opened{Owner: "Ann"}, account.Deposited{Amount: 100})

	filled.When(account.Withdraw{Amount: 30}).
		Then(account.Withdrawn{Amount: 30}).
		ThenState(account.Account{Owner: "Ann", Balance: 70, Open: true})
	filled.When(account.Withdraw{Amount: 101}).
		ThenCode("INSUFFICIENT_FUNDS")
	filled.Given(account.Withdrawn{Amount: 100}, account.Closed{}).
		When(account.Close{}).
		ThenNothing()
}

func TestCodec(t *testing.T) {
	estest.TestCodec(t, account.Codec, []account.Event{
		account.Opened{Owner: "Ann"}, account.Deposited{Amount: 1}, account.Withdrawn{Amount: 1}, account.Closed{}, account.Declined{Code: "x"},
	})
}

func TestSchemas(t *testing.T) { estest.TestSchemas(t, account.Codec, "testdata/events.json") }

// TestPackageExampleMatchesThisFile compares the example in the package comment with the tests above, which the compiler checks.
func TestPackageExampleMatchesThisFile(t *testing.T) {
	comment, err := os.ReadFile("estest.go")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("account_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(comment), "//	func TestWithdraw")
	example, _, found := strings.Cut("//	func TestWithdraw"+example, "// [For]")
	if !found {
		t.Fatal("estest.go has no example, or it does not end before [For]")
	}
	var code []string
	for line := range strings.Lines(example) {
		code = append(code, strings.TrimPrefix(strings.TrimPrefix(strings.TrimRight(line, "\n"), "//"), "\t"))
	}
	if want := strings.TrimSpace(strings.Join(code, "\n")); !strings.Contains(string(file), want) {
		t.Errorf("the example in the package comment is not in account_test.go:\n%s", want)
	}
}
