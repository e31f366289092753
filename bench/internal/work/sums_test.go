package work_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// Both sides and both handlers must build the same read model.
func TestBothSidesBuildTheSameReadModel(t *testing.T) {
	const accounts, events = 123, 20 // more than two pages, the last of them short
	ctx, dir := t.Context(), t.TempDir()
	store, err := sqlite.Open(dir + "/store.db")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	plain, err := baseline.OpenSQLite(dir + "/plain.db")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := errors.Join(work.FillAccounts(ctx, store, accounts, events), work.FillPlain(ctx, plain.Insert, accounts, events)); err != nil {
		t.Fatal(err)
	}
	want := make(map[string]sum)
	for n := range accounts {
		want[work.AccountID(n)] = sum{events, 10*2 + 9*1}
	}
	for _, each := range []bool{false, true} {
		handle := work.SQLiteSums(each)
		ours := work.Projecting(store.Project, projection.Projection[*sql.Tx]{Name: "sums", Prepare: work.PrepareSQLite, Handle: handle})
		theirs := func(ctx context.Context) error { return plain.Project(ctx, 1000, work.PrepareSQLite, handle) }
		for path, build := range map[string]func(context.Context) error{"/store.db": ours, "/plain.db": theirs} {
			db, err := sql.Open("sqlite3", "file:"+dir+path)
			if err != nil {
				t.Fatal(err)
			}
			side := work.Rebuilds(path, work.SQLiteModel{DB: db}, accounts*events, build)
			if _, err := side.Times(ctx, 2); err != nil { // the second rebuild starts from the beginning
				t.Error(err)
			}
			if diff := cmp.Diff(want, sums(t, db)); diff != "" {
				t.Errorf("%s, each %v, -want +got:\n%s", path, each, diff)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

type sum struct{ Count, Sum int64 }

func sums(t *testing.T, db *sql.DB) map[string]sum {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "select id, count, sum from sums")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := make(map[string]sum)
	for rows.Next() {
		var id string
		var s sum
		if err := rows.Scan(&id, &s.Count, &s.Sum); err != nil {
			t.Fatal(err)
		}
		all[id] = s
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRebuildsDetectsAnIncompleteReadModel(t *testing.T) {
	db, err := sql.Open("sqlite3", "file:"+t.TempDir()+"/model.db")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "create table sums (id text, count bigint, sum bigint); insert into sums values ('a', 9, 0)"); err != nil {
		t.Fatal(err)
	}
	side := work.Rebuilds("half", work.SQLiteModel{DB: db}, 10, func(context.Context) error { return nil })
	if _, err := side.Times(t.Context(), 1); err == nil {
		t.Error("no error with 9 of 10 events")
	}
}
