package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// restore writes the content of one database over another that is in use, as the command .restore of SQLite's shell does.
func restore(t testing.TB, from, to string) {
	t.Helper()
	raw := func(path string, do func(conn *sqlite3.SQLiteConn) error) error {
		return connect(t, path).Raw(func(driver any) error { return do(driver.(*sqlite3.SQLiteConn)) })
	}
	err := raw(from, func(source *sqlite3.SQLiteConn) error {
		return raw(to, func(target *sqlite3.SQLiteConn) error {
			backup, err := target.Backup("main", source, "main")
			if err != nil {
				return err
			}
			_, err = backup.Step(-1)
			return errors.Join(err, backup.Finish())
		})
	})
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
}

// backup copies the database of a store as it is now.
func backup(t testing.TB, s *sqlite.Store) string {
	t.Helper()
	copied := file(t)
	if err := s.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// withBackup opens a store with six records, and returns its path and that of a copy that has the first three.
func withBackup(t testing.TB) (s *sqlite.Store, path, old string) {
	t.Helper()
	path = file(t)
	s = open(t, path)
	add(t, s, at("a", 0, "1", "2", "3"))
	old = backup(t, s)
	add(t, s, at("a", 3, "lost", "lost", "lost"))
	return s, path, old
}

func expectAhead(t testing.TB, err error, after, head es.Position) {
	t.Helper()
	var ahead *es.AheadError
	if !errors.As(err, &ahead) || *ahead != (es.AheadError{After: after, Head: head}) {
		t.Errorf("the error is %v; expected a *es.AheadError for %d in a log of %d", err, after, head)
	}
}

// An older copy is restored into the file while the store is open.
func TestRestored(t *testing.T) {
	t.Run("a waiting reader gets an error and does not skip the new records", func(t *testing.T) {
		s, path, old := withBackup(t)
		following := make(chan error, 1)
		seen := make(chan es.Position, 10)
		go func() {
			for r, err := range es.Follow(t.Context(), s, 0, es.Filter{}) {
				if err != nil {
					following <- err
					return
				}
				seen <- r.Position
			}
		}()
		for range 6 {
			<-seen
		}
		restore(t, old, path)
		expectAhead(t, <-following, 6, 3)
	})
	t.Run("a reader whose position was reached again gets an error", func(t *testing.T) {
		s, path, old := withBackup(t)
		restore(t, old, path)
		add(t, open(t, path), at("a", 3, "new", "new", "new", "new", "new"))
		_, err := s.Changed(t.Context(), 6)
		expectAhead(t, err, 6, 3)
	})
	t.Run("a reader of what was kept goes on", func(t *testing.T) {
		s, path, old := withBackup(t)
		restore(t, old, path)
		if head, err := es.Head(t.Context(), s); head != 3 || err != nil {
			t.Errorf("the head is %d, %v; want 3", head, err)
		}
		woken := make(chan es.Position, 1)
		go func() {
			head, err := s.Changed(t.Context(), 3)
			if err != nil {
				t.Error(err)
			}
			woken <- head
		}()
		add(t, open(t, path), at("b", 0, "new"))
		if head := <-woken; head != 4 {
			t.Errorf("the log changed to %d, want 4", head)
		}
		_, err := s.Changed(t.Context(), 5)
		expectAhead(t, err, 5, 4)
		expectTexts(t, s, "1", "2", "3", "new")
	})
	t.Run("a projection in another database stops", func(t *testing.T) {
		s, path, old := withBackup(t)
		model := open(t, file(t))
		var applied []string
		ended := make(chan error, 1)
		go func() {
			ended <- model.Project(t.Context(), sqlite.Projection{
				Name: "p", Source: projection.FromLog(s),
				Handle: func(_ context.Context, _ *sql.Tx, records []es.Record) error {
					applied = append(applied, texts(records)...)
					return nil
				},
			})
		}()
		if err := waitFor(t, model, "p", 6); err != nil {
			t.Fatal(err)
		}
		restore(t, old, path)
		err := <-ended
		expectAhead(t, err, 6, 3)
		if want := []string{"1", "2", "3", "lost", "lost", "lost"}; !slices.Equal(applied, want) {
			t.Errorf("it applied %q, want %q", applied, want)
		}
	})
	for name, others := range map[string][]string{
		"nothing replaces the lost events":         nil,
		"as many events replace the lost ones":     {"new", "new"},
		"more events than were lost replace them":  {"new", "new", "new"},
		"fewer events than were lost replace them": {"new"},
	} {
		t.Run("an append at a lost version is a conflict that says so, once: "+name, func(t *testing.T) {
			for _, reader := range []bool{false, true} { // the store has written the lost events, or read them
				path := file(t)
				s := open(t, path)
				add(t, s, at("a", 0, "1", "2"), at("kept", 0, "3"))
				old := backup(t, s)
				writer := s
				if reader {
					writer = open(t, path)
				}
				add(t, writer, at("a", 2, "lost", "lost"))
				if _, err := s.Append(t.Context(), es.Append{Stream: stream("b"), Expected: 0}); err != nil {
					t.Fatal(err)
				}
				for _, err := range s.Read(t.Context(), stream("a"), 0) {
					if err != nil {
						t.Fatal(err)
					}
				}
				restore(t, old, path)
				now := es.Version(2)
				if len(others) > 0 {
					add(t, open(t, path), at("a", 2, others...))
					now += es.Version(len(others))
				}
				_, err := s.Append(t.Context(), at("a", 4, "on the lost ones"))
				if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) || !errors.Is(err, es.ErrRewound) {
					t.Errorf("the append returned %v; want a conflict that wraps es.ErrRewound", err)
				}
				add(t, s, at("a", now, "again"))
				add(t, s, at("kept", 1, "kept"))
				all(t, s)
			}
		})
	}
	t.Run("streams that have lost nothing are appended to as before", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		add(t, s, at("a", 0, "1"), at("kept", 0, "2"))
		old := backup(t, s)
		add(t, s, at("a", 1, "lost"))
		restore(t, old, path)
		add(t, open(t, path), at("a", 1, "new"), at("kept", 1, "new"), at("new", 0, "new")) // by another process
		add(t, s, at("first", 0, "x"))                                                      // notices the loss
		for _, ids := range []string{"kept", "new"} {
			head := es.Version(0)
			for r, err := range s.Read(t.Context(), stream(ids), 0) {
				if err != nil {
					t.Fatal(err)
				}
				head = r.Version
			}
			if _, err := s.Append(t.Context(), at(ids, head, "x")); err != nil {
				t.Errorf("%s has lost nothing, but got %v", ids, err)
			}
		}
		_, err := s.Append(t.Context(), at("a", 2, "x"))
		expectError(t, err, es.ErrRewound)
		add(t, s, at("a", 2, "x"))
		all(t, s)
	})
	t.Run("a Repo forgets what was lost", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		accounts := es.NewRepo(s, "account", account.Rules{}, account.Codec)
		execute := func(r *es.Repo[account.Account, account.Command, account.Event], commands ...account.Command) (balance int64) {
			t.Helper()
			for _, c := range commands {
				result, err := r.Execute(t.Context(), "hot", c)
				if err != nil {
					t.Fatal(err)
				}
				balance = result.State.Balance
			}
			return balance
		}
		execute(accounts, account.Open{Owner: "x"}, account.Deposit{Amount: 100})
		old := backup(t, s)
		execute(accounts, account.Deposit{Amount: 1000}, account.Deposit{Amount: 10000})
		restore(t, old, path)
		execute(es.NewRepo(open(t, path), "account", account.Rules{}, account.Codec), account.Deposit{Amount: 1}, account.Deposit{Amount: 2})
		if _, err := accounts.Execute(t.Context(), "hot", account.Withdraw{Amount: 5000}); err == nil {
			t.Error("5000 cents were withdrawn from a lost deposit")
		}
		if balance := execute(accounts, account.Deposit{Amount: 5}); balance != 108 {
			t.Errorf("the balance is %d, want 108", balance)
		}
		all(t, s)
	})
	t.Run("long after, with marks of it far apart", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		for i := range 500 {
			add(t, s, at(fmt.Sprint(i%50), es.AnyVersion, "x"))
		}
		old := backup(t, s)
		for range 100 {
			add(t, s, at("lost", es.AnyVersion, "lost"))
		}
		restore(t, old, path)
		_, err := s.Append(t.Context(), at("lost", 100, "x"))
		expectError(t, err, es.ErrRewound)
		late := 0
		for i := range 50 {
			if _, err := s.Append(t.Context(), at(fmt.Sprint(i), 10, "x")); errors.Is(err, es.ErrRewound) {
				late++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if late > 25 {
			t.Errorf("%d of 50 streams that lost nothing had a conflict", late)
		}
		all(t, s)
	})
}

func waitFor(t testing.TB, s *sqlite.Store, name string, position es.Position) error {
	t.Helper()
	for {
		err := s.WaitFor(t.Context(), name, position)
		if err == nil || !strings.Contains(err.Error(), "not exist") {
			return err
		}
	}
}
