package postgres_test

import (
	"errors"
	"flag"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	rules "github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// rewind deletes the records after a position and their commands, as a restore of an older copy does.
func rewind(t testing.TB, url string, behind es.Position) {
	t.Helper()
	run(t, url, "set es.change_history = 'on'", fmt.Sprintf(`with lost as (delete from es.events where position > %d returning kind, id, version)
		delete from es.commands c using lost l where c.kind = l.kind and c.id = l.id and l.version between c.first and c.last`, behind))
}

func isRewound(err error) bool { return isConflict(err) && errors.Is(err, es.ErrRewound) }

func TestRewind(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		t.Run("an append without events does not learn a version that may be lost", func(t *testing.T) {
			url := server.Database(t)
			s, other := open(t, url), open(t, url)
			mustAppend(t, s, at(account("mine"), 0, 1))
			mustAppend(t, other, at(account("a"), 0, 7))
			if _, err := s.Append(t.Context(), add(account("a"), 0)); err != nil {
				t.Fatal(err)
			}
			rewind(t, url, 4)
			if _, err := s.Append(t.Context(), at(account("a"), 7, 1)); !isConflict(err) {
				t.Errorf("at a version that is lost: got %v, want a conflict", err)
			}
			dense(t, s)
		})
		t.Run("streams that have lost nothing are appended to as before", func(t *testing.T) {
			url := server.Database(t)
			s := open(t, url)
			for i := range 30 {
				mustAppend(t, s, at(account(fmt.Sprint(i)), 0, 1))
			}
			mustAppend(t, s, at(account("lost"), 0, 2))
			rewind(t, url, 31)
			other := open(t, url)
			for i := range 30 { // after the restore, by another process
				mustAppend(t, other, at(account(fmt.Sprint(i)), 1, 1))
			}
			mustAppend(t, other, at(account("lost"), 1, 1), at(account("new"), 0, 1))
			mustAppend(t, s, at(account("first"), 0, 1)) // notices the loss
			for _, id := range []string{"0", "7", "29", "new"} {
				head := es.Version(len(collect(t, s.Read(t.Context(), account(id), 0))))
				if _, err := s.Append(t.Context(), at(account(id), head, 1)); err != nil {
					t.Errorf("%s has lost nothing, but got %v", id, err)
				}
			}
			for i, want := range []bool{true, false} {
				if _, err := s.Append(t.Context(), at(account("lost"), 2, 1)); isRewound(err) != want || !want && err != nil {
					t.Errorf("attempt %d at a version that is lost and was reached again: got %v", i, err)
				}
				collect(t, s.Read(t.Context(), account("lost"), 0))
			}
			dense(t, s)
		})
		t.Run("another append of the batch does not hide a lost version", func(t *testing.T) {
			url := server.Database(t)
			s := open(t, url)
			mustAppend(t, s, at(account("a"), 0, 5))
			rewind(t, url, 3)
			for range 2 { // as the batch finds out, and when it is known
				head := es.Version(len(dense(t, s)))
				_, errs := s.WriteTogether(t.Context(), []es.Append{add(account("a"), 1)}, []es.Append{at(account("b"), 0, 0), at(account("a"), head+1, 1)})
				if errs[0] != nil || !isRewound(errs[1]) {
					t.Errorf("got %v, want nil and a conflict that says that the database has lost its end", errs)
				}
			}
			dense(t, s)
		})
		t.Run("several appends in a call get the conflict, too", func(t *testing.T) {
			url := server.Database(t)
			s := open(t, url)
			mustAppend(t, s, at(account("a"), 0, 5))
			rewind(t, url, 3)
			mustAppend(t, open(t, url), at(account("a"), 3, 2))
			if _, err := s.Append(t.Context(), at(account("a"), 5, 1), at(account("a"), 6, 1)); !isRewound(err) {
				t.Errorf("got %v, want a conflict that wraps es.ErrRewound", err)
			}
			if got := len(dense(t, s)); got != 5 {
				t.Errorf("%d records, want 5", got)
			}
		})
		t.Run("a lost command can be applied again, a kept one cannot", func(t *testing.T) {
			url := server.Database(t)
			s := open(t, url)
			for i, c := range []string{"kept", "lost"} {
				mustAppend(t, s, es.Append{Stream: account("a"), Expected: es.Version(i), Command: c, Events: events(1)})
			}
			rewind(t, url, 1)
			if _, err := s.Append(t.Context(), es.Append{Stream: account("a"), Expected: 1, Command: "kept", Events: events(1)}); !isDuplicate(err) {
				t.Errorf("got %v, want a duplicate", err)
			}
			collect(t, s.Read(t.Context(), account("a"), 0))
			appendOnceTold(t, s, es.Append{Stream: account("a"), Expected: 1, Command: "lost", Events: events(1)})
			dense(t, s)
		})
	})
}

// appendOnceTold appends to a stream that was read since the rewind. The first append to it fails regardless, because the store cannot know
// which caller has read; the second succeeds.
func appendOnceTold(t testing.TB, s es.Store, appends ...es.Append) {
	t.Helper()
	if _, err := s.Append(t.Context(), appends...); errors.Is(err, es.ErrRewound) {
		mustAppend(t, s, appends...)
	} else if err != nil {
		t.Errorf("append: %v", err)
	}
}

type accounts = es.Repo[rules.Account, rules.Command, rules.Event]

func bank(s es.Store) *accounts { return es.NewRepo(s, "account", rules.Rules{}, rules.Codec) }

func execute(t testing.TB, r *accounts, commands ...rules.Command) {
	t.Helper()
	for _, c := range commands {
		if _, err := r.Execute(t.Context(), "hot", c); err != nil {
			t.Fatalf("%#v: %v", c, err)
		}
	}
}

// On a single account, positions and versions coincide, both in the lost history and in the one that replaces it.
func TestRewoundRepo(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for name, test := range map[string]struct {
			others []rules.Command // in place of the lost ones
			want   int64
		}{
			"nothing replaces the lost events":                 {nil, 100},
			"other events replace the lost ones":               {[]rules.Command{rules.Deposit{Amount: 1}, rules.Deposit{Amount: 2}}, 103},
			"more events than were lost replace them":          {[]rules.Command{rules.Deposit{Amount: 1}, rules.Deposit{Amount: 2}, rules.Deposit{Amount: 3}}, 106},
			"fewer events than were lost replace them":         {[]rules.Command{rules.Deposit{Amount: 1}}, 101},
			"the account was closed and moved, all but a cent": {[]rules.Command{rules.Withdraw{Amount: 99}}, 1},
		} {
			t.Run(name, func(t *testing.T) {
				url := server.Database(t)
				s := open(t, url)
				r := bank(s)
				execute(t, r, rules.Open{Owner: "x"}, rules.Deposit{Amount: 100}, rules.Deposit{Amount: 1000}, rules.Deposit{Amount: 10000})
				rewind(t, url, 2)
				execute(t, bank(open(t, url)), test.others...)
				if _, err := r.Execute(t.Context(), "hot", rules.Withdraw{Amount: 5000}); err == nil {
					t.Error("5000 cents were withdrawn from a lost deposit")
				}
				result, err := r.Execute(t.Context(), "hot", rules.Deposit{Amount: 5})
				if err != nil || result.State.Balance != test.want+5 {
					t.Errorf("balance %d, want %d: %v", result.State.Balance, test.want+5, err)
				}
				at, err := r.Load(t.Context(), "hot")
				state, version := at.State, at.Version
				if err != nil || state.Balance != test.want+5 || version != result.Version {
					t.Errorf("balance %d at version %d, want %d at %d: %v", state.Balance, version, test.want+5, result.Version, err)
				}
				dense(t, s)
			})
		}
	})
}

// A repo with a cached state detects the loss even if another repo on the same store has detected it and read the new history before.
func TestRewoundRepoIsNotTheFirstToNotice(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		r := bank(s)
		execute(t, r, rules.Open{Owner: "x"}, rules.Deposit{Amount: 100}, rules.Deposit{Amount: 1000}, rules.Deposit{Amount: 10000})
		rewind(t, url, 2)
		execute(t, bank(open(t, url)), rules.Deposit{Amount: 1}, rules.Deposit{Amount: 2})
		if at, err := r.Load(t.Context(), "hot"); err != nil || at.State.Balance != 103 || at.Version != 4 {
			t.Errorf("balance %d at version %d, want 103 at 4: %v", at.State.Balance, at.Version, err)
		}
		execute(t, r, rules.Deposit{Amount: 10000}) // cached again, and its time is not known
		rewind(t, url, 4)
		execute(t, bank(open(t, url)), rules.Deposit{Amount: 4})
		if _, err := s.Append(t.Context(), es.Append{Stream: account("other"), Expected: es.AnyVersion, Events: events(1)}); err != nil {
			t.Fatal(err)
		}
		if at, err := bank(s).LoadAt(t.Context(), "hot", 5); err != nil || at.State.Balance != 107 {
			t.Fatalf("balance %d, want 107: %v", at.State.Balance, err)
		}
		if _, err := r.Execute(t.Context(), "hot", rules.Withdraw{Amount: 5000}); err == nil {
			t.Error("5000 cents were withdrawn from a lost deposit")
		}
		if result, err := r.Execute(t.Context(), "hot", rules.Withdraw{Amount: 107}); err != nil || result.State.Balance != 0 {
			t.Errorf("balance %d, want 0: %v", result.State.Balance, err)
		}
		dense(t, s)
	})
}

// Commands on one account are decided and appended together, so they get the conflict of a rewind together.
func TestRewoundRepoWithManyCommands(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s := open(t, url)
		r := bank(s)
		execute(t, r, rules.Open{Owner: "x"}, rules.Deposit{Amount: 100}, rules.Deposit{Amount: 1000}, rules.Deposit{Amount: 10000})
		release := holdLock(t, open(t, url), url)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if _, err := r.Execute(t.Context(), "hot", rules.Deposit{Amount: 1}); err != nil {
					t.Errorf("command %d: %v", i, err)
				}
			})
			if i == 0 {
				waiting(t, url, 1)
			}
		}
		inside(t, 50, "Execute")
		release()
		all.Wait()
		rewind(t, url, 2)
		execute(t, bank(open(t, url)), rules.Deposit{Amount: 1}, rules.Deposit{Amount: 2})
		release = holdLock(t, open(t, url), url)
		for i := range 50 {
			all.Go(func() {
				if _, err := r.Execute(t.Context(), "hot", rules.Deposit{Amount: 1}); err != nil {
					t.Errorf("command %d: %v", i, err)
				}
			})
		}
		inside(t, 50, "Execute")
		release()
		all.Wait()
		if at, err := r.Load(t.Context(), "hot"); err != nil || at.State.Balance != 153 {
			t.Errorf("balance %d, want 153: %v", at.State.Balance, err)
		}
		dense(t, s)
	})
}

// The database is restored from an older copy while a store is open.
func TestRestoreOfAnOlderCopy(t *testing.T) {
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18} {
		t.Run(string(version), func(t *testing.T) {
			server := testserver.StartPostgres(t, testserver.PostgresOptions{Version: version})
			url := server.Database(t)
			s := open(t, url)
			r := bank(s)
			execute(t, r, rules.Open{Owner: "x"}, rules.Deposit{Amount: 100})
			mustAppend(t, s, at(account("kept"), 0, 2))
			server.Stop(t, testserver.Fast)
			backup := server.Backup(t)
			server.Start(t)
			execute(t, r, rules.Deposit{Amount: 1000})
			mustAppend(t, s, at(account("kept"), 2, 3))
			mustAppend(t, s, at(account("lost"), 0, 2))
			f := follow(t, s, 10)
			inside(t, 1, "growth.(*Growth).Wait")
			server.Stop(t, testserver.Immediate)
			server.Restore(t, backup)
			server.Start(t)

			ahead := (*es.AheadError)(nil)
			if err := <-f.err; !errors.As(err, &ahead) || ahead.After != 10 || ahead.Head != 4 {
				t.Errorf("got %v, want that position 10 is beyond the end of the log, 4", err)
			}
			for name, a := range map[string]es.Append{"the lost end of a stream": at(account("kept"), 5, 1), "a lost stream": at(account("lost"), 2, 1)} {
				if _, err := s.Append(t.Context(), a); !isRewound(err) {
					t.Errorf("an append to %s: got %v, want a conflict that wraps es.ErrRewound", name, err)
				}
			}
			result, err := r.Execute(t.Context(), "hot", rules.Withdraw{Amount: 60})
			if err != nil || result.State.Balance != 40 || result.Version != 3 || result.Position != 5 {
				t.Errorf("got %+v, want 40 cents at version 3 and position 5: %v", result, err)
			}
			if got := len(collect(t, s.Read(t.Context(), account("kept"), 0))); got != 2 {
				t.Errorf("read %d records, want 2", got)
			}
			mustAppend(t, s, at(account("kept"), 2, 1))
			mustAppend(t, s, at(account("lost"), 0, 1))
			follow(t, s, 4).sees(t, 5, 7)
			dense(t, s)
		})
	}
}

// Whatever is lost and replaced, versions have no gaps, and no append succeeds that was decided on a lost record.
func TestRewindModel(t *testing.T) {
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	open(t, url) // which makes the schema
	conn := connect(t, url)
	run := 0
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // the default takes too long
		if err := checks.Value.Set("30"); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }() // the same value was set before
	}
	rapid.Check(t, func(r *rapid.T) {
		run++
		m := &rewindModel{T: t, r: r, url: url, conn: conn, run: run}
		if err := conn.QueryRow(t.Context(), "select coalesce(max(position), 0) from es.events").Scan(&m.base); err != nil {
			r.Fatal(err)
		}
		for range 2 {
			m.clients = append(m.clients, &client{store: open(t, url), seen: make(map[es.Stream]sight)})
		}
		r.Repeat(map[string]func(*rapid.T){
			"read": m.read, "append": m.append, "append again": m.append, "append several": m.appendSeveral, "append nothing": m.appendNothing,
			"rewind": m.rewind, "": func(*rapid.T) {},
		})
		m.check()
		for _, c := range m.clients {
			if err := c.store.Close(); err != nil {
				r.Fatal(err)
			}
		}
	})
}

type rewindModel struct {
	*testing.T
	r       *rapid.T
	url     string
	conn    *pgx.Conn
	run     int
	base    es.Position
	named   int
	clients []*client
}

// A client is a program with its own store. It appends at the versions that it has seen.
type client struct {
	store *postgres.Store
	seen  map[es.Stream]sight
}

// A sight is the last record of a stream that a client has seen.
type sight struct {
	version es.Version
	data    string
}

func (m *rewindModel) draw(r *rapid.T) (*client, es.Stream) {
	return rapid.SampledFrom(m.clients).Draw(r, "client"), m.stream(rapid.IntRange(1, 3).Draw(r, "stream"))
}

func (m *rewindModel) stream(n int) es.Stream {
	return es.Stream{Kind: fmt.Sprint("run", m.run), ID: fmt.Sprint(n)}
}

func (m *rewindModel) read(r *rapid.T) {
	c, stream := m.draw(r)
	c.seen[stream] = sight{}
	for record, err := range c.store.Read(m.Context(), stream, 0) {
		if err != nil {
			r.Fatal(err)
		}
		c.seen[stream] = sight{record.Version, string(record.Data)}
	}
}

func (m *rewindModel) next(stream es.Stream, expected es.Version) es.Append {
	m.named++
	return named(fmt.Sprintf("%d: %d", m.run, m.named), stream, expected)
}

func (m *rewindModel) append(r *rapid.T) {
	c, stream := m.draw(r)
	before := c.seen[stream]
	a := m.next(stream, before.version)
	if rapid.IntRange(0, 5).Draw(r, "any") == 0 {
		a.Expected = es.AnyVersion
	}
	if rapid.Bool().Draw(r, "command") {
		a.Command = string(a.Events[0].Data)
	}
	m.do(r, c, before, a)
}

func (m *rewindModel) appendSeveral(r *rapid.T) {
	c, stream := m.draw(r)
	before := c.seen[stream]
	m.do(r, c, before, m.next(stream, before.version), m.next(stream, before.version+1))
}

func (m *rewindModel) appendNothing(r *rapid.T) {
	c, stream := m.draw(r)
	before := c.seen[stream]
	a := es.Append{Stream: stream, Expected: before.version}
	if rapid.Bool().Draw(r, "any") {
		a.Expected = es.AnyVersion
	}
	if _, err := c.store.Append(m.Context(), a); err != nil && !isConflict(err) {
		r.Fatal(err)
	}
}

// do appends to a stream what a client decided on the last record it saw.
func (m *rewindModel) do(r *rapid.T, c *client, before sight, appends ...es.Append) {
	stream := appends[0].Stream
	_, err := c.store.Append(m.Context(), appends...)
	if err != nil {
		if !isConflict(err) {
			r.Fatalf("append of %v: %v", appends, err)
		}
		m.read(r)
		return
	}
	v := m.check()[stream]
	last := string(appends[len(appends)-1].Events[0].Data)
	if appends[0].Expected >= 0 {
		if want := before.version + es.Version(len(appends)); v.version != want {
			r.Fatalf("appended at version %d of %s, and it has %d, want %d", before.version, stream, v.version, want)
		}
		var data []byte
		if before.version > 0 {
			if err := m.conn.QueryRow(m.Context(), "select data from es.events where kind = $1 and id = $2 and version = $3", stream.Kind, stream.ID, before.version).Scan(&data); err != nil {
				r.Fatal(err)
			}
		}
		if string(data) != before.data {
			r.Fatalf("an append decided on %q was written after %q, version %d of %s", before.data, data, before.version, stream)
		}
	}
	if v.data != last {
		r.Fatalf("the last record of %s is %q, want %q", stream, v.data, last)
	}
	c.seen[stream] = v
}

func (m *rewindModel) rewind(r *rapid.T) {
	var head es.Position
	if err := m.conn.QueryRow(m.Context(), "select coalesce(max(position), 0) from es.events").Scan(&head); err != nil {
		r.Fatal(err)
	}
	rewind(m.T, m.url, es.Position(rapid.Int64Range(int64(m.base), int64(head)).Draw(r, "head")))
}

// check checks that positions and versions are dense, and returns the last record of each stream.
func (m *rewindModel) check() map[es.Stream]sight {
	rows, err := m.conn.Query(m.Context(), "select position, kind, id, version, data from es.events where position > $1 order by position", m.base)
	if err != nil {
		m.r.Fatal(err)
	}
	defer rows.Close()
	last, at := make(map[es.Stream]sight), m.base
	for rows.Next() {
		var r es.Record
		if err := rows.Scan(&r.Position, &r.Stream.Kind, &r.Stream.ID, &r.Version, &r.Data); err != nil {
			m.r.Fatal(err)
		}
		if at++; r.Position != at || r.Version != last[r.Stream].version+1 {
			m.r.Fatalf("%s is at position %d behind version %d and position %d", r.ID(), r.Position, last[r.Stream].version, at-1)
		}
		last[r.Stream] = sight{r.Version, string(r.Data)}
	}
	if err := rows.Err(); err != nil {
		m.r.Fatal(err)
	}
	return last
}

// A conflict with a cached version holds only if the batch is written, because that shows that the log is the one that was cached.
func TestConflictOfALostReplyIsJudgedAgain(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		s, wire := openOn(t, url)
		mustAppend(t, s, at(account("a"), 0, 5))
		rewind(t, url, 3)
		wire.keep("account")
		_, errs := s.WriteTogether(t.Context(), []es.Append{at(account("a"), 3, 1)}, []es.Append{at(account("b"), 0, 1)})
		if !isRewound(errs[0]) || errs[1] != nil {
			t.Errorf("got %v, want a conflict that says that the database has lost its end, and nil", errs)
		}
		dense(t, s)
	})
}
