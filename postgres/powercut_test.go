package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/powercut"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// cutPower appends while the power of the server is cut at random moments, and returns how many acknowledged appends are lost.
func cutPower(t *testing.T, version testserver.Version, settings map[string]string, rounds int) (lost int) {
	t.Helper()
	d := powercut.Start(t)
	server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: version, Preload: d.Library(), Settings: settings})
	url := server.Database(t)
	open(t, url) // which makes the schema
	server.Stop(t, testserver.Fast)
	if err := d.Attach(server.Dir()); err != nil {
		t.Fatal(err)
	}
	server.Start(t)
	s := open(t, url)
	said := make(map[es.Position]string)
	for round := range rounds {
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		var writers sync.WaitGroup
		enough := make(chan struct{}, 1)
		for w := range 1 + rand.N(6) {
			writers.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					text := fmt.Sprint(round, "-", w, "-", k)
					position, err := s.Append(ctx, named(text, account(fmt.Sprint(w)), es.AnyVersion))
					if err != nil {
						continue // until the round ends: it may be written, or not
					}
					mu.Lock()
					said[position] = text
					if k > 20 {
						select {
						case enough <- struct{}{}:
						default:
						}
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		if rand.N(3) == 0 {
			run(t, url, "checkpoint")
		}
		time.Sleep(rand.N(100 * time.Millisecond)) // not synchronization: a random moment for the cut
		server.Kill(t)
		stop()
		writers.Wait()
		if err := d.Cut(); err != nil {
			t.Fatal(err)
		}
		server.Start(t)
		records := make(map[es.Position]string)
		fresh, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Logf("the store does not open: %v", err) // a lost schema
			return len(said)
		}
		for _, r := range dense(t, fresh) {
			records[r.Position] = string(r.Data)
		}
		if err := fresh.Close(); err != nil {
			t.Error(err)
		}
		for position, text := range said {
			if records[position] != text {
				lost++
			}
		}
		t.Logf("%d records after the cut, %d acknowledged appends so far, %d lost", len(records), len(said), lost)
		if lost > 0 {
			break
		}
	}
	return lost
}

// The power is cut while a program appends. What was acknowledged is there afterwards.
func TestPowerCut(t *testing.T) {
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18} {
		t.Run(string(version), func(t *testing.T) {
			// The store raises this setting for its appends.
			settings := map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s"}
			if lost := cutPower(t, version, settings, 4); lost > 0 {
				t.Errorf("%d acknowledged appends are lost", lost)
			}
		})
	}
}

// The same test finds a server that acknowledges too early.
func TestPowerCutFindsWhatIsNotDurable(t *testing.T) {
	settings := map[string]string{"fsync": "off", "wal_writer_delay": "10s"}
	if lost := cutPower(t, testserver.Postgres18, settings, 6); lost == 0 {
		t.Error("nothing was lost")
	}
}
