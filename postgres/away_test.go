package postgres_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/testserver"
	"github.com/thalo-go/es/postgres"
)

// What a reaction needs may be away for longer than a record is tried.
func TestAReactionOutlastsAServerThatIsAway(t *testing.T) {
	t.Parallel()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	s := open(t, url)
	away, proxy := through(t, postgres.Config{}, url, "")
	mustAppend(t, s, add(account("a"), 1))
	proxy.Cut()
	proxy.Refuse()

	var tries atomic.Int32
	handled, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- s.React(ctx, es.Reaction{Name: "patient", Retries: 1, Handle: func(ctx context.Context, r es.Record) error {
			tries.Add(1)
			for _, err := range away.Read(ctx, r.Stream, 0) {
				if err != nil {
					return err
				}
			}
			close(handled)
			return nil
		}})
	}()
	eventually(t, "it was tried more often than a record is", func() bool { return tries.Load() > 3 || len(ended) > 0 })
	proxy.Heal(t)
	select {
	case <-handled:
	case err := <-ended:
		t.Fatalf("the reaction ended: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the reaction ended with %v", err)
	}
}
