package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// lockTable blocks all readers of events until the transaction ends.
func lockTable(t testing.TB, url string) pgx.Tx {
	t.Helper()
	tx := begin(t, connect(t, url), "")
	if _, err := tx.Exec(t.Context(), "lock table es.events in access exclusive mode"); err != nil {
		t.Fatal(err)
	}
	return tx
}

// A crowd is concurrent readers.
type crowd struct {
	sync.WaitGroup
	mu      sync.Mutex
	records map[int][]es.Record
	errs    map[int]error
}

// gather starts n readers. If no two queries are in flight, the first two readers run their own. gather returns when the others wait.
func gather(t testing.TB, s *postgres.Store, n int, read func(i int) (context.Context, es.Stream, es.Version)) *crowd {
	t.Helper()
	c := &crowd{records: make(map[int][]es.Record), errs: make(map[int]error)}
	waiting := n - 2 + s.Loading()
	for i := range n {
		ctx, stream, after := read(i)
		c.Go(func() {
			records, err := drain(s.Read(ctx, stream, after))
			c.mu.Lock()
			defer c.mu.Unlock()
			c.records[i], c.errs[i] = records, err
		})
	}
	eventually(t, "all but two readers have gathered", func() bool { return s.Gathering() == waiting })
	return c
}

func TestReadTogether(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s, tap := tapped(t, url)
		var want []es.Record
		for i := range 40 {
			mustAppend(t, s, at(account(fmt.Sprint(i)), 0, i*3)) // 0 to 117, more than the page of one in a crowd
		}
		want = dense(t, s)
		stream := func(i int) (context.Context, es.Stream, es.Version) {
			return t.Context(), account(fmt.Sprint(i % 45)), es.Version(i % 7) // some do not exist, some repeat
		}
		check := func(t *testing.T, c *crowd, i int) {
			t.Helper()
			_, stream, after := stream(i)
			var expected []es.Record
			for _, r := range want {
				if r.Stream == stream && r.Version > after {
					expected = append(expected, r)
				}
			}
			if c.errs[i] != nil {
				t.Errorf("reader %d: %v", i, c.errs[i])
			} else if !reflect.DeepEqual(expected, c.records[i]) {
				t.Errorf("reader %d of %s after %d (-want +got):\n%s", i, stream, after, cmp.Diff(expected, c.records[i]))
			}
		}
		t.Run("returns the records in few round trips", func(t *testing.T) {
			const n = 300
			tx := lockTable(t, url)
			before := tap.sent()
			c := gather(t, s, n, stream)
			rollback(t, tx)
			c.Wait()
			for i := range n {
				check(t, c, i)
			}
			// Two alone, three together, and one more each for the streams with more than a page: 64 of those read after a small version.
			long := 0
			for i := range n {
				if len(c.records[i]) >= 64 {
					long++
				}
			}
			if sent := tap.sent() - before - long; sent > 20 {
				t.Errorf("%d readers took %d round trips beside %d for further pages", n, sent, long)
			}
		})
		for _, sent := range []bool{false, true} {
			t.Run(map[bool]string{false: "some readers leave before the query", true: "some readers leave during the query"}[sent], func(t *testing.T) {
				const n = 100
				tx := lockTable(t, url)
				first, letGo := context.WithCancel(t.Context())
				leaving, leave := context.WithCancel(t.Context())
				leaves := func(i int) bool { return i%3 == 0 }
				two := gather(t, s, 2, func(i int) (context.Context, es.Stream, es.Version) { return first, account(fmt.Sprint(i)), 0 })
				inside(t, 2, "postgres.(*Store).readPage")
				c := gather(t, s, n, func(i int) (context.Context, es.Stream, es.Version) {
					own, stream, after := stream(i)
					if leaves(i) {
						own = leaving
					}
					return own, stream, after
				})
				if sent {
					letGo()
					inside(t, 1, "postgres.(*loader).readTogether")
					two.Wait()
				}
				leave()
				eventually(t, "the leaving readers have left", func() bool {
					c.mu.Lock()
					defer c.mu.Unlock()
					return len(c.errs) == (n+2)/3
				})
				rollback(t, tx)
				letGo()
				two.Wait()
				c.Wait()
				for i := range n {
					if !leaves(i) {
						check(t, c, i)
					} else if !errors.Is(c.errs[i], context.Canceled) {
						t.Errorf("reader %d left, and got %v", i, c.errs[i])
					}
				}
			})
		}
		t.Run("no query when all readers have left", func(t *testing.T) {
			tx := lockTable(t, url)
			ctx, cancel := context.WithCancel(t.Context())
			c := gather(t, s, 50, func(i int) (context.Context, es.Stream, es.Version) { return ctx, account(fmt.Sprint(i)), 0 })
			cancel()
			c.Wait()
			rollback(t, tx)
			for _, err := range c.errs {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want the context's error", err)
				}
			}
			if got := len(collect(t, s.Read(t.Context(), account("7"), 0))); got != 21 {
				t.Errorf("afterwards a reader got %d records, want 21", got)
			}
		})
		for _, order := range []string{"q.n desc, e.version", "e.version desc", "e.version, q.n", "md5(e.token::text)"} {
			t.Run("if the server orders records by "+order, func(t *testing.T) {
				const n = 90
				s := open(t, url)
				s.ReadTogetherBy(order)
				tx := lockTable(t, url)
				c := gather(t, s, n, stream)
				rollback(t, tx)
				c.Wait()
				for i := range n {
					check(t, c, i)
				}
			})
		}
		t.Run("large records take several pages", func(t *testing.T) {
			large := make([]es.Record, 9)
			for i := range large {
				large[i] = es.Record{Type: "t", Data: []byte(strings.Repeat(fmt.Sprint(i), 300<<10))}
			}
			for i := range 4 {
				mustAppend(t, s, es.Append{Stream: account(fmt.Sprint("large", i)), Expected: 0, Events: large})
			}
			tx := lockTable(t, url)
			c := gather(t, s, 8, func(i int) (context.Context, es.Stream, es.Version) {
				return t.Context(), account(fmt.Sprint("large", i%4)), 0
			})
			rollback(t, tx)
			c.Wait()
			for i := range 8 {
				if len(c.records[i]) != len(large) || c.errs[i] != nil {
					t.Fatalf("reader %d got %d records, %v; want %d", i, len(c.records[i]), c.errs[i], len(large))
				}
				for j, r := range c.records[i] {
					if string(r.Data) != string(large[j].Data) || r.Version != es.Version(j+1) {
						t.Errorf("reader %d: record %d is %s with other data", i, j, r.ID())
					}
				}
			}
		})
		t.Run("all readers get an error", func(t *testing.T) {
			tx := lockTable(t, url)
			if _, err := tx.Exec(t.Context(), "drop schema es cascade"); err != nil {
				t.Fatal(err)
			}
			c := gather(t, s, 20, stream)
			commit(t, tx)
			c.Wait()
			for i, err := range c.errs {
				if code(err) != "42P01" || !strings.Contains(err.Error(), "run Migrate") || !strings.Contains(err.Error(), "read account/") {
					t.Errorf("reader %d: got %v, want that the table is not there, the remedy and the stream", i, err)
				}
			}
		})
	})
}

// Breaking off a loop must neither cost the pool its connection nor leave it busy.
func TestBreakingOffAReadKeepsItsConnection(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		pool := newPool(t, with(server.Database(t), "pool_max_conns=2"))
		s, err := postgres.New(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.AbandonAfter(time.Minute) // the machine may be busy
		for range 6 {
			mustAppend(t, s, add(account("a"), 1000))
		}
		for name, read := range map[string]iter.Seq2[es.Record, error]{
			"Read": s.Read(t.Context(), account("a"), 0), "All": s.All(t.Context(), 0, es.Filter{}),
		} {
			_ = collect(t, read)
			fillPool(t, pool) // the notification of an append may need the second connection at any time
			before := pool.Stat().NewConnsCount()
			for _, after := range []int{1, 63, 64, 65, 320, 321, 1023, 1024, 1025, 1344, 1345, 5440, 5441, 6000} {
				n := 0
				for r, err := range read {
					if err != nil {
						t.Fatal(err)
					}
					if n++; r.Version != es.Version(n) {
						t.Fatalf("record %d has version %d", n, r.Version)
					}
					if n == after {
						break
					}
				}
				if n != after {
					t.Errorf("%s: read %d records, want %d", name, n, after)
				}
				eventually(t, "no connection is busy", func() bool { return pool.Stat().AcquiredConns() == 0 })
			}
			if made := pool.Stat().NewConnsCount() - before; made != 0 {
				t.Errorf("%s: %d connections were replaced", name, made)
			}
		}
	})
}

// fillPool makes a pool open all its connections.
func fillPool(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	var all []*pgxpool.Conn
	for range pool.Config().MaxConns {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.Release()
	}
}

// A page arrives in pieces, and its connection must not wait for the loop body.
func TestReadsHoldNoConnectionWhileTheBodyRuns(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		s := open(t, with(server.Database(t), "pool_max_conns=1"))
		for range 3 {
			mustAppend(t, s, add(account("a"), 1000))
		}
		for name, read := range map[string]iter.Seq2[es.Record, error]{
			"Read": s.Read(t.Context(), account("a"), 0), "All": s.All(t.Context(), 0, es.Filter{Kinds: []string{"account"}}),
		} {
			n := 0
			for _, err := range read {
				if err != nil {
					t.Fatal(err)
				}
				if n++; n%500 == 1 {
					mustAppend(t, s, add(account("b"+name), 1)) // with the only connection
				}
				if n > 3000 {
					break // All reaches the records that the body has appended
				}
			}
			if n < 3000 {
				t.Errorf("%s: %d records, want 3000", name, n)
			}
		}
	})
}
