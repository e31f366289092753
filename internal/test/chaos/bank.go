package chaos

import (
	"fmt"
	"strings"

	"github.com/thalo-go/es"
)

// The bank has a few accounts; the first ones take part in most transfers. The first command of each account opens it
// and the second deposits its initial balance. All later commands are transfers, so the total stays the same.
const (
	kindAccount = "account"
	kindBonus   = "bonus" // of a reaction: one cent for some of the deposits
	hotAccounts = 3
	endowment   = 10_000_00 // initial balance of each account in cents
)

func accountStream(n int) es.Stream { return es.Stream{Kind: kindAccount, ID: accountID(n)} }
func accountID(n int) string        { return fmt.Sprintf("a%03d", n) }

// Prefixes of command ids show what the command is.
const (
	prefixOpen   = "open."
	prefixFund   = "fund."
	prefixAtomic = "atomic." // a transfer by one append to two streams
	prefixSteps  = "steps."  // a transfer by two commands
	prefixShared = "salary." // a transfer by two commands that several processes send
)

func isFunding(command string) bool {
	return strings.HasPrefix(command, prefixOpen) || strings.HasPrefix(command, prefixFund)
}

func isAtomic(command string) bool { return strings.HasPrefix(command, prefixAtomic) }

// metaTo is the metadata key in the first half of a transfer that names the receiving account, so that another process
// can complete the transfer.
const metaTo = "to"
