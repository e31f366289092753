package sqlite_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/powercut"
	"github.com/thalo-go/es/sqlite"
)

// carelessly is write on a store that syncs only before checkpoints of its write-ahead log.
func carelessly(ctx context.Context, s *sqlite.Store, args []string) error {
	err := s.OnWriter(func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec("pragma synchronous = normal", nil)
		return err
	})
	if err != nil {
		return err
	}
	return write(ctx, s, args)
}

// early is write, but acknowledges each append before it is written.
func early(ctx context.Context, s *sqlite.Store, _ []string) error {
	for k := 0; ; k++ {
		position, err := es.Head(ctx, s)
		if err != nil {
			return err
		}
		text := fmt.Sprint("early-", k)
		appends := several(0, k, text)
		child.Say(int(position)+len(appends[0].Events)+1, text)
		if _, err := s.Append(ctx, appends...); err != nil {
			return err
		}
	}
}

// cutPower runs a writing child process, cuts the power at random moments, and returns how many acknowledged appends are lost.
func cutPower(t *testing.T, role string, rounds int) (lost int) {
	t.Helper()
	d := powercut.Start(t)
	folder := t.TempDir()
	if err := d.Attach(folder); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_PRELOAD", d.Library())
	path := filepath.Join(folder, "es.db")
	said := make(map[es.Position]string)
	for range rounds {
		c := child.Start(t, role, path, 1+rand.N(8))
		c.Await(20 + rand.N(200))
		time.Sleep(rand.N(5 * time.Millisecond)) // not synchronization: a random moment for the cut
		c.Stop()
		maps.Copy(said, acknowledged(t, c.Lines()))
		if err := d.Cut(); err != nil {
			t.Fatal(err)
		}
		s, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		records := all(t, s)
		expectWholeAppends(t, records)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for position, text := range said {
			if int(position) > len(records) || string(records[position-1].Data) != text {
				lost++
			}
		}
		t.Logf("%d records after the cut, %d acknowledged appends so far, %d lost", len(records), len(said), lost)
		if lost > 0 {
			break // positions are given again
		}
		if err := d.Attach(folder); err != nil { // what this process has written is durable
			t.Fatal(err)
		}
	}
	return lost
}

// The power is cut while a process appends. What was acknowledged is there afterwards.
func TestPowerCut(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	if lost := cutPower(t, "write", rounds); lost > 0 {
		t.Errorf("%d acknowledged appends are lost", lost)
	}
}

// The same test finds stores that acknowledge too early.
func TestPowerCutFindsWhatIsNotDurable(t *testing.T) {
	for _, role := range []string{"carelessly", "early"} {
		t.Run(role, func(t *testing.T) {
			if lost := cutPower(t, role, 20); lost == 0 {
				t.Error("nothing was lost")
			}
		})
	}
}
