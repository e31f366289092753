package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/sqlite"
)

const hour = int64(time.Hour / time.Microsecond)

// The clock of a machine is set back by an hour while a projection runs.
func TestClockIsSetBack(t *testing.T) {
	t.Run("heartbeats go on", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		var step atomic.Int64
		s.SetDay(func() time.Time { return time.Now().Add(time.Duration(step.Load())) })
		run(t, s, sqlite.Projection{Name: "p", Lease: 200 * time.Millisecond, Handle: nothing})
		db := connect(t, path)
		expires := func() int64 { return ask[int64](t, db, "select coalesce(max(expires), 0) from es_workers") }
		eventually.True(t, "the first heartbeat", func() bool { return expires() > 0 })
		step.Store(-int64(time.Hour))
		before := expires()
		eventually.True(t, "another heartbeat", func() bool { return expires() > before })
		before = expires()
		eventually.True(t, "another heartbeat", func() bool { return expires() > before })
		if err := waitFor(t, s, "p", add(t, s, at("a", es.AnyVersion, "x"))); err != nil {
			t.Error(err)
		}
	})
	t.Run("a worker that died before does not hold its shards", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		stop := run(t, s, sqlite.Projection{Name: "p", Handle: nothing})
		if err := waitFor(t, s, "p", add(t, s, at("a", 0, "x"))); err != nil {
			t.Fatal(err)
		}
		stop()
		db := connect(t, path)
		// What a worker leaves behind that sent a heartbeat an hour from now, and was killed.
		do(t, db, "update es_shards set holder = 'dead'")
		do(t, db, fmt.Sprint("insert into es_workers (name, version, worker, expires, beat) select 'p', 0, 'dead', n + 10000000, n from (select cast(unixepoch('subsec') * 1000000 as integer) + ", hour, " as n)"))
		run(t, s, sqlite.Projection{Name: "p", Handle: nothing})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := s.WaitFor(ctx, "p", add(t, s, at("a", 1, "x"))); err != nil {
			t.Error(err)
		}
	})
	t.Run("a holder that died before does not hold its lease", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		acquire := func(holder string) string {
			l, err := s.AcquireLease(t.Context(), "relay", holder, time.Minute, "")
			if err != nil {
				t.Fatal(err)
			}
			return l.Holder
		}
		acquire("a")
		if holder := acquire("b"); holder != "a" {
			t.Errorf("%s has the lease of a", holder)
		}
		db := connect(t, path)
		do(t, db, "update es_leases set until = until + 5000000, renewed = renewed + 5000000")
		if holder := acquire("b"); holder != "a" {
			t.Errorf("%s has the lease of a, after the clock was set back by less than its duration", holder)
		}
		do(t, db, fmt.Sprint("update es_leases set until = until + ", hour, ", renewed = renewed + ", hour))
		if holder := acquire("b"); holder != "b" {
			t.Errorf("%s has the lease, although it was renewed in the future", holder)
		}
		do(t, db, fmt.Sprint("update es_leases set until = until + ", hour, ", renewed = 0")) // by a release that does not note it
		if holder := acquire("a"); holder != "b" {
			t.Errorf("%s has the lease of an older release", holder)
		}
	})
}

func nothing(context.Context, *sql.Tx, []es.Record) error { return nil }

// run runs a projection until the test ends, or the returned function is called.
func run(t *testing.T, s *sqlite.Store, p sqlite.Projection) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Project(ctx, p); ctx.Err() == nil {
			t.Errorf("the projection ended: %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}
