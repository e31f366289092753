package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// openFastPath appends to a stream until the fast path is open.
func openFastPath(t testing.TB, s *postgres.Store) {
	t.Helper()
	for n := 0; !s.FastPath(); n++ {
		if n > 10_000 {
			t.Fatal("the fast path never opens")
		}
		mustAppend(t, s, add(account("alone"), 1))
	}
}

// dropAppendOne leaves a store only the fast path. Its error shows an attempt to call append_one.
func dropAppendOne(t testing.TB, url string) (wanted func(error) bool, lift func()) {
	t.Helper()
	run(t, url, "alter function es.append_one rename to barred")
	return func(err error) bool { return code(err) == "42883" }, func() { run(t, url, "alter function es.barred rename to append_one") }
}

func TestFastPath(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		begin := func(t *testing.T, parameters string) (s, other *postgres.Store) {
			empty(t, url)
			s, other = open(t, with(url, parameters)), open(t, url)
			mustAppend(t, other, at(account("there"), 0, 2))
			openFastPath(t, s)
			return s, other
		}
		t.Run("a lone writer takes the fast path", func(t *testing.T) {
			s, _ := begin(t, "")
			wanted, lift := dropAppendOne(t, url)
			long := time.Now()
			for v := range es.Version(20) {
				meta := map[string]string{"n": fmt.Sprint(v)}
				position := mustAppend(t, s, es.Append{Stream: account("a"), Expected: v, Events: []es.Record{{Type: "t", Data: []byte{0, byte(v), 255}, Meta: meta}}})
				all := collect(t, s.Read(t.Context(), account("a"), v))
				if r := all[0]; len(all) != 1 || r.Position != position || r.Version != v+1 || r.Type != "t" || string(r.Data) != string([]byte{0, byte(v), 255}) || r.Meta["n"] != meta["n"] || time.Since(r.Time) > time.Since(long)+time.Minute {
					t.Fatalf("wrote version %d at position %d, read %+v", v+1, position, r)
				}
			}
			mustAppend(t, s, add(account("a"), 1)) // its version is known
			if _, err := s.Append(t.Context(), at(account("a"), 3, 1)); !isConflict(err) {
				t.Errorf("an append at a version that is past: %v", err)
			}
			if _, err := s.Append(t.Context(), at(account("there"), 0, 1)); !wanted(err) {
				t.Errorf("an append to another writer's stream: got %v, want a call of append_one", err)
			}
			lift()
			mustAppend(t, s, at(account("there"), 2, 1))
			dense(t, s)
		})
		t.Run("after another writer, append_one finds the head", func(t *testing.T) {
			s, other := begin(t, "")
			head := mustAppend(t, other, add(account("b"), 3))
			if got := mustAppend(t, s, at(account("a"), 0, 1)); got != head+1 {
				t.Errorf("wrote position %d, want %d", got, head+1)
			}
			openFastPath(t, s)
			mustAppend(t, other, at(account("a"), 1, 1))
			if _, err := s.Append(t.Context(), at(account("a"), 1, 1)); !isConflict(err) {
				t.Errorf("an append at a version of another writer: %v", err)
			}
			mustAppend(t, s, at(account("a"), 2, 1))
			dense(t, s)
		})
		t.Run("after meeting another writer, the path stays closed for longer", func(t *testing.T) {
			s, other := begin(t, "")
			alone := 0
			for range 3 {
				mustAppend(t, other, add(account("b"), 1))
				mustAppend(t, s, add(account("alone"), 1))
				before := alone
				for alone = 0; !s.FastPath(); alone++ {
					mustAppend(t, s, add(account("alone"), 1))
				}
				if alone <= before {
					t.Errorf("the next try came after %d appends, the one before after %d", alone, before)
				}
			}
		})
		for name, parameters := range map[string]string{
			"no short way without prepared statements":        "default_query_exec_mode=exec",
			"no short way at another default isolation level": "default_transaction_isolation=serializable",
		} {
			t.Run(name, func(t *testing.T) {
				s, _ := begin(t, parameters)
				wanted, lift := dropAppendOne(t, url)
				if _, err := s.Append(t.Context(), add(account("alone"), 1)); !wanted(err) {
					t.Errorf("got %v, want a call of append_one", err)
				}
				lift()
			})
		}
		t.Run("time does not run backwards", func(t *testing.T) {
			s, _ := begin(t, "")
			run(t, url, `insert into es.events (position, kind, id, version, time, type, data, meta, token)
				select max(position) + 1, 'clock', 'wrong', 1, now() + interval '1 hour', 't', '', '', 1 from es.events`)
			mustAppend(t, s, add(account("alone"), 1))
			openFastPath(t, s)
			mustAppend(t, s, add(account("alone"), 1))
			var last time.Time
			for _, r := range dense(t, s) {
				if r.Time.Before(last) {
					t.Fatalf("position %d has time %v, the one before %v", r.Position, r.Time, last)
				}
				last = r.Time
			}
		})
		t.Run("a lost tail is detected", func(t *testing.T) {
			s, other := begin(t, "")
			head := mustAppend(t, s, at(account("a"), 0, 1))
			mustAppend(t, s, at(account("a"), 1, 1))
			loseTail(t, url, head)
			mustAppend(t, other, at(account("b"), 0, 1)) // at the same position
			_, err := s.Append(t.Context(), at(account("a"), 2, 1))
			if !isConflict(err) || !errors.Is(err, es.ErrRewound) {
				t.Errorf("an append at a version that is lost: got %v, want a conflict and es.ErrRewound", err)
			}
			dense(t, s)
		})
		t.Run("a role that may not read the fences calls append_one", func(t *testing.T) {
			s, _ := begin(t, "")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			role := strings.ToLower(fmt.Sprintf("blind_%d", time.Now().UnixNano()))
			run(t, url, "create role "+role+" login", "grant usage on schema es to "+role,
				"grant select, insert on all tables in schema es to "+role, "grant execute on all functions in schema es to "+role)
			blind := open(t, testserver.As(url, role, ""))
			openFastPath(t, blind)
			wanted, lift := dropAppendOne(t, url)
			if _, err := blind.Append(t.Context(), add(account("alone"), 1)); !wanted(err) {
				t.Errorf("got %v, want a call of append_one", err)
			}
			lift()
			mustAppend(t, blind, add(account("alone"), 1))
			run(t, url, "drop owned by "+role, "drop role "+role)
		})
	})
}

// The snapshot of the fast path's statement is older than its lock. It must detect what happened in between.
func TestFastPathWaitingForTheLock(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		for name, test := range map[string]struct {
			during  func(t *testing.T, held es.Store, sql func(string))
			want    func(error) bool
			written int
		}{
			"nothing happens":                    {func(*testing.T, es.Store, func(string)) {}, isNil, 1},
			"another writer writes the position": {func(t *testing.T, held es.Store, _ func(string)) { mustAppend(t, held, add(account("b"), 1)) }, isNil, 2},
			"another writer writes the version":  {func(t *testing.T, held es.Store, _ func(string)) { mustAppend(t, held, add(account("alone"), 1)) }, isConflict, 1},
			"a call is fenced off, it may be this one": {func(_ *testing.T, _ es.Store, sql func(string)) {
				sql("select es.resolve(0, -7, -7)")
				sql("alter function es.append_one rename to barred") // so that only the short way is left
			}, func(err error) bool { return code(err) == "42883" }, 0},
		} {
			t.Run(name, func(t *testing.T) {
				empty(t, url)
				s := open(t, url)
				openFastPath(t, s)
				mustAppend(t, s, add(account("alone"), 1)) // the first on the short way has asked about the fences
				head, err := es.Head(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				conn := connect(t, url)
				tx, err := conn.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				held := open(t, url).In(tx)
				if _, err := held.Append(t.Context(), es.Append{Stream: account("asked"), Expected: 0}); err != nil { // takes the lock
					t.Fatal(err)
				}
				answered := make(chan error, 1)
				go func() {
					_, err := s.Append(t.Context(), at(account("alone"), es.Version(head), 1))
					answered <- err
				}()
				waiting(t, url, 1)
				test.during(t, held, func(sql string) {
					if _, err := tx.Exec(t.Context(), sql); err != nil {
						t.Error(err)
					}
				})
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-answered; !test.want(err) {
					t.Errorf("got %v", err)
				}
				if got := len(dense(t, s)) - int(head); got != test.written {
					t.Errorf("%d records were written before the lock was released, want %d", got, test.written)
				}
			})
		}
	})
}

func TestFastPathThatBreaks(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for what, lose := range breaks {
			t.Run("the connection loses "+what, func(t *testing.T) {
				url := server.Database(t)
				s, proxy := through(t, postgres.Config{}, url, "pool_max_conns=2")
				l := newLedger()
				for _, test := range []struct {
					append es.Append
					want   func(error) bool
				}{
					{named("new", account("new"), 0), isNil},
					{named("known", account("new"), 1), isNil},
					{named("any", account("new"), es.AnyVersion), isNil},
				} {
					for n := 0; !s.FastPath(); n++ {
						_ = l.append(t.Context(), s, named(fmt.Sprint("before ", string(test.append.Events[0].Data), n), account(fmt.Sprint("alone", n)), es.AnyVersion)) // the ledger has the error
					}
					lost := lose(proxy, test.append.Stream.ID)
					if err := l.append(t.Context(), s, test.append); !test.want(err) {
						t.Errorf("%s: got %v", test.append.Events[0].Data, err)
					}
					<-lost
					l.check(t, url)
				}
			})
		}
		t.Run("the request arrives late", func(t *testing.T) {
			url := server.Database(t)
			s, wire := openOn(t, url)
			l := newLedger()
			for _, a := range []es.Append{named("new", account("new"), 0), named("known", account("new"), 1), named("any", account("new"), es.AnyVersion)} {
				for n := 0; !s.FastPath(); n++ {
					_ = l.append(t.Context(), s, named(fmt.Sprint("before ", string(a.Events[0].Data), n), account("alone"), es.AnyVersion)) // the ledger has the error
				}
				wire.keep(a.Stream.ID)
				if err := l.append(t.Context(), s, a); err != nil {
					t.Errorf("%s: %v", a.Events[0].Data, err)
				}
				if answer := wire.deliver(t); !strings.Contains(answer, "INSERT 0 0") {
					t.Errorf("%s: the late call was answered %q, want that it has inserted nothing", a.Events[0].Data, answer)
				}
				l.check(t, url)
			}
		})
	})
}
