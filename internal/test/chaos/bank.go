package chaos

import (
	"fmt"
	"strings"

	"github.com/thalo-go/es"
)

// The bank has a few accounts, of which the first ones are in most transfers. The first command of each opens it, the second one pays in
// what it has; all that comes afterwards is transfers, so that what is there stays the same.
const (
	kindAccount = "account"
	kindBonus   = "bonus" // of a reaction: a cent for each deposit of some
	hotAccounts = 3
	endowment   = 10_000_00 // cents in each account at the beginning
)

func accountStream(n int) es.Stream { return es.Stream{Kind: kindAccount, ID: accountID(n)} }
func accountID(n int) string        { return fmt.Sprintf("a%03d", n) }

// The identities of commands say what they are.
const (
	prefixOpen   = "open."
	prefixFund   = "fund."
	prefixAtomic = "atomic." // a transfer by one append to two streams
	prefixSteps  = "steps."  // a transfer by two commands
	prefixShared = "salary." // the same by two commands that several processes send
)

func isFunding(command string) bool {
	return strings.HasPrefix(command, prefixOpen) || strings.HasPrefix(command, prefixFund)
}

func isAtomic(command string) bool { return strings.HasPrefix(command, prefixAtomic) }

// metaTo is the metadata in which the first half of a transfer says to whom it goes, so that whoever finds it alone can bring the other half.
const metaTo = "to"
