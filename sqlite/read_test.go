package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// positions returns the positions of the records that match a filter.
func positions(t *testing.T, s es.Log, after es.Position, filter es.Filter) (found []es.Position) {
	t.Helper()
	for r, err := range s.All(t.Context(), after, filter) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, r.Position)
	}
	return found
}

func TestPages(t *testing.T) {
	t.Run("no record is missing at their boundaries", func(t *testing.T) {
		s := open(t, ":memory:")
		const n = 5000
		for i := range 5 {
			add(t, s, at("long", es.Version(i*n/10), make([]string, n/10)...), at(fmt.Sprint(i), 0, make([]string, n/10)...))
		}
		if found := len(all(t, s)); found != n {
			t.Errorf("%d records; expected %d", found, n)
		}
		for _, after := range []es.Position{-5, 0, 1, 63, 64, 65, 319, 320, 4999, 5000, 5001} {
			expected := n - int(min(max(after, 0), n))
			found := positions(t, s, after, es.Filter{})
			if len(found) != expected || expected > 0 && found[0] != max(after, 0)+1 {
				t.Errorf("after %d: %d records; expected %d", after, len(found), expected)
			}
		}
	})
	t.Run("records larger than a page are read one by one", func(t *testing.T) {
		s := open(t, ":memory:")
		for v := range es.Version(3) {
			a := at("a", v, "")
			a.Events[0].Data = make([]byte, 6<<20)
			a.Events[0].Data[5<<20] = byte(v)
			add(t, s, a)
		}
		records := all(t, s)
		for i, r := range records {
			if len(r.Data) != 6<<20 || r.Data[5<<20] != byte(i) {
				t.Errorf("%s has other data", r.ID())
			}
		}
		if len(records) != 3 {
			t.Errorf("%d records", len(records))
		}
	})
	t.Run("if the context ends within a page, the loop ends at the next record", func(t *testing.T) {
		s := open(t, ":memory:")
		add(t, s, at("a", 0, make([]string, 10)...))
		for name, read := range map[string]func(context.Context) iter.Seq2[es.Record, error]{
			"Read": func(ctx context.Context) iter.Seq2[es.Record, error] { return s.Read(ctx, stream("a"), 0) },
			"All":  func(ctx context.Context) iter.Seq2[es.Record, error] { return s.All(ctx, 0, es.Filter{}) },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			seen := 0
			var last error
			for _, err := range read(ctx) {
				if last = err; err == nil {
					seen++
				}
				if seen == 3 {
					cancel()
				}
			}
			cancel()
			if expectError(t, last, context.Canceled); seen != 3 {
				t.Errorf("%s gave %d records; expected 3", name, seen)
			}
		}
	})
	t.Run("memory in use does not grow with the size of records", func(t *testing.T) {
		metadata := make(map[string]string)
		for i := range 16 {
			metadata[fmt.Sprint("key", i)] = strings.Repeat("m", 3000)
		}
		for name, event := range map[string]es.Record{
			"data":     {Type: "large", Data: make([]byte, 1<<20)},
			"metadata": {Type: "large", Meta: metadata},
		} {
			s := open(t, file(t))
			n := 48
			if name == "metadata" {
				n = 1500
			}
			for v := 0; v < n; v += 12 {
				events := slices.Repeat([]es.Record{event}, 12)
				add(t, s, es.Append{Stream: stream("a"), Expected: es.Version(v), Events: events})
			}
			ctx, cancel := context.WithCancel(t.Context())
			before, most, seen := inUse(), uint64(0), 0
			for _, err := range es.Follow(ctx, s, 0, es.Filter{}) {
				if err != nil {
					break
				}
				if seen++; seen%(n/12) == 0 {
					most = max(most, inUse())
				}
				if seen == n {
					cancel()
				}
			}
			cancel()
			if grown := int64(most) - int64(before); grown > 16<<20 {
				t.Errorf("%d MiB more in use while following %d records with large %s", grown>>20, seen, name)
			}
		}
	})
}

func inUse() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestFilter(t *testing.T) {
	s := open(t, file(t))
	odd := []string{"plain", "it's", `"quoted"`, `back\slash`, "ü", "日本語", "😀", "a\nb", " ", "%", "_", "null", "12", "1.5", "true", "[1]", "{}", "\ufffd", "A", "a", "a b"}
	var kinds, types []string
	for _, name := range odd {
		kinds, types = append(kinds, "k"+name), append(types, "t"+name)
	}
	kinds, types = append(kinds, odd...), append(types, odd...)
	for i, kind := range kinds {
		a := es.Append{Stream: es.Stream{Kind: kind, ID: "x"}}
		for j := range 5 {
			a.Events = append(a.Events, es.Record{Type: types[(i*7+j*11)%len(types)]})
		}
		add(t, s, a)
	}
	records := all(t, s)
	many := func(more ...string) []string {
		for i := range 5000 {
			more = append(more, fmt.Sprint("none", i))
		}
		return more
	}
	filters := []es.Filter{
		{Kinds: kinds}, {Types: types}, {Kinds: kinds[:7], Types: types[3:]}, {Kinds: many()}, {Types: many("t\ufffd")}, {Kinds: many("ü"), Types: many("plain", "12", "A")},
		{Kinds: []string{"\xff"}}, {Types: []string{"\xff", "t\xff"}}, {Kinds: []string{"a\x00b"}}, {Kinds: []string{""}}, {Types: []string{"", "a"}}, {Kinds: []string{"a", "a"}},
		{Kinds: []string{}, Types: []string{}},
	}
	for _, name := range odd {
		filters = append(filters, es.Filter{Kinds: []string{name}}, es.Filter{Types: []string{name}}, es.Filter{Kinds: []string{name, "k" + name}, Types: []string{name, "t" + name}})
	}
	for _, f := range filters {
		for _, after := range []es.Position{0, 17} {
			var expected []es.Position
			for _, r := range records[after:] {
				if f.Match(r) {
					expected = append(expected, r.Position)
				}
			}
			if diff := cmp.Diff(expected, positions(t, s, after, f)); diff != "" {
				t.Errorf("%.200s after %d differs from Match (-Match +All):\n%s", f, after, diff)
			}
		}
	}
}

func TestLongFilteredRead(t *testing.T) {
	path := file(t)
	s := open(t, path)
	const n = 50_000
	for i := range n / 5000 {
		a := at(fmt.Sprint(i), 0, make([]string, 5000)...)
		a.Events[i].Type = "rare"
		add(t, s, a)
	}
	t.Run("finds rare records anywhere", func(t *testing.T) {
		var expected []es.Position
		for i := range n / 5000 {
			expected = append(expected, es.Position(i*5000+i+1))
		}
		if found := positions(t, s, 0, es.Filter{Types: []string{"rare"}}); !slices.Equal(found, expected) {
			t.Errorf("%d; expected %d", found, expected)
		}
		if found := positions(t, s, expected[3], es.Filter{Types: []string{"rare"}, Kinds: []string{"account", "other"}}); !slices.Equal(found, expected[4:]) {
			t.Errorf("%d; expected %d", found, expected[4:])
		}
		if found := len(positions(t, s, 0, es.Filter{Types: []string{"noted"}})); found != n-len(expected) {
			t.Errorf("%d records that are not rare; expected %d", found, n-len(expected))
		}
	})
	t.Run("ends with its context, also between matches", func(t *testing.T) {
		for _, patience := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			var last error
			for last == nil {
				for r, err := range s.All(ctx, 0, es.Filter{Types: []string{"none"}}) {
					if last = err; err == nil || !cmp.Equal(r, es.Record{}) {
						t.Errorf("it gave %v, %v", r, err)
					}
				}
			}
			expectError(t, last, context.DeadlineExceeded)
			cancel()
		}
	})
	t.Run("holds no transaction while the loop body runs", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		held := 0
		for _, err := range s.All(ctx, 0, es.Filter{Types: []string{"rare"}}) {
			if err != nil {
				t.Fatal(err)
			}
			var busy, frames, moved int
			row := connect(t, path).QueryRowContext(ctx, "pragma wal_checkpoint(restart)")
			if err := row.Scan(&busy, &frames, &moved); err != nil {
				t.Fatal(err)
			}
			held += busy
		}
		if held > 0 {
			t.Error("it kept the write-ahead log from being emptied")
		}
	})
}

func TestQueriesUseTheirIndex(t *testing.T) {
	path := file(t)
	s := open(t, path)
	for i := range 30 {
		a := command(fmt.Sprint(i), 0, "c", make([]string, 100)...)
		a.Stream.Kind = fmt.Sprint("kind", i%3)
		add(t, s, a)
	}
	parameter := regexp.MustCompile(`\?\d?`)
	for _, statistics := range []string{"without statistics", "with statistics"} {
		for _, query := range sqlite.Queries {
			for _, step := range plan(t, connect(t, path), parameter.ReplaceAllString(query, "1")) {
				fromTheEnd := strings.HasSuffix(query, "order by position desc limit 1")
				if strings.Contains(step, "TEMP B-TREE") || strings.HasPrefix(step, "SCAN es_") && !fromTheEnd {
					t.Errorf("%s, %s:\n%s", query, statistics, step)
				}
			}
		}
		tamper(t, path, "analyze")
	}
}

// plan returns the steps of SQLite's query plan.
func plan(t *testing.T, conn *sql.Conn, query string) (steps []string) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), "explain query plan "+query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestDamagedMetadataIsNamed(t *testing.T) {
	path := file(t)
	s := open(t, path)
	add(t, s, at("a", 0, "one"))
	tamper(t, path, "insert into es_events (position, kind, id, version, time, type, data, meta) values (2, 'account', 'a', 2, 0, 't', x'', '{broken')")
	var last error
	for _, err := range s.Read(t.Context(), stream("a"), 0) {
		last = err
	}
	var syntax *json.SyntaxError
	if !errors.As(last, &syntax) || !strings.Contains(last.Error(), "metadata of account/a/2 at position 2") {
		t.Errorf("the error is %v", last)
	}
}
