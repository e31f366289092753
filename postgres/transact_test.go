package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/thalo-go/es"
	teller "github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// A connection breaks while both streams of a transfer are written. The store finds out whether they were. If its caller leaves before,
// the same command id does.
func TestATransactWhoseConnectionIsLost(t *testing.T) {
	t.Parallel()
	server := testserver.Postgres(t, testserver.Postgres18)
	for what, lose := range breaks {
		for _, leaves := range []bool{false, true} {
			t.Run("the connection loses "+what, func(t *testing.T) {
				s, proxy := through(t, postgres.Config{}, server.Database(t), "pool_max_conns=1")
				accounts := es.NewRepo(s, "account", teller.Rules{}, teller.Codec)
				for _, id := range []string{"ann", "bob"} {
					for _, c := range []teller.Command{teller.Open{Owner: id}, teller.Deposit{Amount: 100}} {
						if _, err := accounts.Execute(t.Context(), id, c); err != nil {
							t.Fatal(err)
						}
					}
				}
				var repeated bool
				transfer := func(ctx context.Context) (es.Position, error) {
					return es.Transact(ctx, func(tx *es.Tx) error {
						_, err := accounts.ExecuteTx(ctx, tx, "ann", teller.Withdraw{Amount: 100})
						if err != nil {
							return err
						}
						r, err := accounts.ExecuteTx(ctx, tx, "bob", teller.Deposit{Amount: 100})
						repeated = r.Repeated
						return err
					}, es.CommandID("the transfer"))
				}
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				lost := lose(proxy, "the transfer")
				if leaves {
					proxy.Refuse() // the only connection is open
					go func() {
						<-lost
						leave()
					}()
				}
				last, err := transfer(ctx)
				switch {
				case !leaves && (err != nil || last != 6 || repeated):
					t.Errorf("%d, %v, repeated %t; want it resolved, at position 6", last, err, repeated)
				case leaves && (!errors.Is(err, es.ErrUnknownOutcome) || !errors.Is(err, context.Canceled)):
					t.Errorf("%v; want es.ErrUnknownOutcome and the error of the context", err)
				}
				<-lost
				proxy.Heal(t)
				if last, err := transfer(t.Context()); err != nil || last != 6 {
					t.Errorf("the same command again: %d, %v; want position 6", last, err)
				}
				for id, want := range map[string]int64{"ann": 0, "bob": 200} {
					if at, err := es.NewRepo(s, "account", teller.Rules{}, teller.Codec).Load(t.Context(), id); err != nil || at.State.Balance != want || at.Version != 3 {
						t.Errorf("%s has %d at version %d, %v; want %d at version 3", id, at.State.Balance, at.Version, err, want)
					}
				}
			})
		}
	}
}
