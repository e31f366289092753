package sealed_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
	"github.com/thalo-go/es/sealed"
	"github.com/thalo-go/es/sqlite"
)

const user = "user/42"

type address struct {
	Street string
	Number int
}

func seal[T any](t testing.TB, keys sealed.Keys, subject string, value T) sealed.Value[T] {
	t.Helper()
	v, err := sealed.Seal(t.Context(), keys, subject, value)
	must(t, err)
	return v
}

func TestAValueIsOpenedAsItWasSealed(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d keyDatabase) {
		keys, elsewhere := d.keys(t), d.keys(t)
		want := address{"Main Street", 7}
		v := seal(t, keys, user, want)
		encoded, err := json.Marshal(v)
		must(t, err)
		if strings.Contains(string(encoded), "Main") {
			t.Errorf("the JSON has the content: %s", encoded)
		}
		var back sealed.Value[address]
		must(t, json.Unmarshal(encoded, &back))
		got, err := back.Open(t.Context(), elsewhere)
		if err != nil || got != want || back != v {
			t.Errorf("got %+v, %v", got, err)
		}
		if twice := seal(t, keys, user, want); twice.Box == v.Box || twice.Key != v.Key {
			t.Errorf("the second value of a subject: %+v after %+v", twice, v)
		}
		var none sealed.Value[address]
		if _, err := none.Open(t.Context(), keys); !errors.Is(err, es.ErrInvalid) || !none.IsZero() || v.IsZero() {
			t.Errorf("an empty value: %v", err)
		}
		if _, err := (sealed.Value[int]{Subject: v.Subject, Key: v.Key, Box: v.Box}).Open(t.Context(), keys); !errors.Is(err, es.ErrInvalid) || strings.Contains(err.Error(), "Main") {
			t.Errorf("a value of another type: %v", err)
		}
	})
}

func TestNoTwoBoxesAreEqual(t *testing.T) {
	t.Parallel()
	keys := sqliteKeys(t).keys(t)
	nonces := make(map[string]bool)
	for range 1000 {
		nonces[seal(t, keys, user, "x").Box[:16]] = true // 12 bytes
	}
	if len(nonces) != 1000 {
		t.Errorf("1000 boxes have %d nonces", len(nonces))
	}
}

func TestAChangedValueIsRefused(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d keyDatabase) {
		keys := d.keys(t)
		foreign := sqliteKeys(t).keys(t)
		v, other := seal(t, keys, user, "ann@example.com"), seal(t, keys, "user/43", "bob@example.com")
		strange := seal(t, foreign, user, "ann@example.com")
		for what, test := range map[string]struct {
			value sealed.Value[string]
			want  error
		}{
			"moved to another subject":              {sealed.Value[string]{Subject: other.Subject, Key: other.Key, Box: v.Box}, sealed.ErrDamaged},
			"of another subject, with its own key":  {sealed.Value[string]{Subject: other.Subject, Key: v.Key, Box: v.Box}, sealed.ErrUnknownKey},
			"of a subject that does not exist":      {sealed.Value[string]{Subject: "user/44", Key: v.Key, Box: v.Box}, sealed.ErrUnknownKey},
			"sealed by the keys of another program": {strange, sealed.ErrUnknownKey},
			"with the box of another program":       {sealed.Value[string]{Subject: user, Key: v.Key, Box: strange.Box}, sealed.ErrDamaged},
			"without a key":                         {sealed.Value[string]{Subject: user, Box: v.Box}, sealed.ErrUnknownKey},
			"without a box":                         {sealed.Value[string]{Subject: user, Key: v.Key}, sealed.ErrDamaged},
			"cut off":                               {sealed.Value[string]{Subject: user, Key: v.Key, Box: v.Box[:len(v.Box)-1]}, sealed.ErrDamaged},
			"with a line break":                     {sealed.Value[string]{Subject: user, Key: v.Key, Box: v.Box[:9] + "\n" + v.Box[9:]}, sealed.ErrDamaged},
			"without a subject":                     {sealed.Value[string]{Key: v.Key, Box: v.Box}, es.ErrInvalid},
			"with an invalid subject":               {sealed.Value[string]{Subject: "\xff", Key: v.Key, Box: v.Box}, es.ErrInvalid},
		} {
			if got, err := test.value.Open(t.Context(), keys); !errors.Is(err, test.want) || got != "" {
				t.Errorf("a value %s: got %q, %v; want %v", what, got, err, test.want)
			}
		}
		for i := range len(v.Box) {
			changed := []byte(v.Box)
			changed[i] ^= 1
			bad := v
			bad.Box = string(changed)
			if got, err := bad.Open(t.Context(), keys); !errors.Is(err, sealed.ErrDamaged) || got != "" {
				t.Errorf("with character %d changed: got %q, %v", i, got, err)
			}
		}
	})
}

func TestAnErasedSubjectStaysErased(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d keyDatabase) {
		keys, elsewhere := d.keys(t), d.keys(t)
		v, other := seal(t, keys, user, "ann@example.com"), seal(t, keys, "user/43", "bob@example.com")
		for range 2 { // it may be repeated
			must(t, keys.Erase(t.Context(), user))
			must(t, keys.Erase(t.Context(), "user/without a key"))
			for _, k := range []sealed.Keys{keys, elsewhere, d.keys(t)} {
				if _, err := v.Open(t.Context(), k); !errors.Is(err, sealed.ErrErased) {
					t.Errorf("opening a value of an erased subject: %v", err)
				}
				for _, subject := range []string{user, "user/without a key"} {
					if _, err := sealed.Seal(t.Context(), k, subject, "late"); !errors.Is(err, sealed.ErrErased) {
						t.Errorf("sealing a value of an erased subject: %v", err)
					}
				}
				if got, err := other.Open(t.Context(), k); err != nil || got != "bob@example.com" {
					t.Errorf("a value of another subject: got %q, %v", got, err)
				}
			}
		}
		var keysLeft int
		must(t, d.connect(t).QueryRowContext(t.Context(), "select count(*) from sealed_keys where box <> ''").Scan(&keysLeft))
		if keysLeft != 1 {
			t.Errorf("%d keys are left, want that of the other subject", keysLeft)
		}
	})
}

// Several processes seal values of subjects, some of their first, while others erase the subjects.
func TestSealAndEraseAtOnce(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d keyDatabase) {
		const subjects, sealers = 12, 4
		processes := []sealed.Keys{d.keys(t), d.keys(t)}
		var mu sync.Mutex
		var boxes []sealed.Value[int]
		var all sync.WaitGroup
		start := make(chan struct{})
		for s := range subjects {
			subject := fmt.Sprint("user/", s)
			for i := range sealers {
				all.Go(func() {
					<-start
					for n := 0; ; n++ {
						v, err := sealed.Seal(t.Context(), processes[i%2], subject, n)
						if errors.Is(err, sealed.ErrErased) {
							return
						}
						if err != nil {
							t.Errorf("seal: %v", err)
							return
						}
						mu.Lock()
						boxes = append(boxes, v)
						mu.Unlock()
					}
				})
			}
			all.Go(func() {
				<-start
				if err := processes[s%2].Erase(t.Context(), subject); err != nil {
					t.Errorf("erase: %v", err)
				}
				if _, err := sealed.Seal(t.Context(), processes[(s+1)%2], subject, 0); !errors.Is(err, sealed.ErrErased) {
					t.Errorf("sealed after the erasure: %v", err)
				}
			})
		}
		close(start)
		all.Wait()
		for _, v := range boxes {
			if _, err := v.Open(t.Context(), processes[0]); !errors.Is(err, sealed.ErrErased) {
				t.Fatalf("a box opens after the erasure: %v", err)
			}
		}
		var keysLeft int
		must(t, d.connect(t).QueryRowContext(t.Context(), "select count(*) from sealed_keys where box <> ''").Scan(&keysLeft))
		if keysLeft != 0 {
			t.Errorf("%d keys are left of %d erased subjects", keysLeft, subjects)
		}
	})
}

func subjects(names ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, name := range names {
			if !yield(name, nil) {
				return
			}
		}
	}
}

// The row of a key comes back as from a backup. What the log says is enforced, and the subject is named.
func TestAKeyThatComesBackIsNoticed(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d keyDatabase) {
		keys, db := d.keys(t), d.connect(t)
		v := seal(t, keys, user, "ann@example.com")
		_, err := db.ExecContext(t.Context(), "create table backup as select * from sealed_keys")
		must(t, err)
		must(t, keys.Erase(t.Context(), user))
		must(t, keys.Erase(t.Context(), "user/43"))
		if back, err := sealed.Enforce(t.Context(), keys, subjects(user, "user/43")); err != nil || len(back) != 0 {
			t.Fatalf("before the restore: got %q, %v", back, err)
		}
		for _, statement := range []string{"delete from sealed_keys", "insert into sealed_keys select * from backup"} {
			_, err := db.ExecContext(t.Context(), statement)
			must(t, err)
		}
		if got, err := v.Open(t.Context(), keys); err != nil || got != "ann@example.com" {
			t.Fatalf("the key is not back: %q, %v", got, err)
		}
		back, err := sealed.Enforce(t.Context(), keys, subjects(user, "user/43"))
		if err != nil || !slices.Equal(back, []string{user, "user/43"}) {
			t.Errorf("after the restore: got %q, %v", back, err)
		}
		if _, err := v.Open(t.Context(), keys); !errors.Is(err, sealed.ErrErased) {
			t.Errorf("after Enforce: %v", err)
		}
		failure := errors.New("failure")
		if _, err := sealed.Enforce(t.Context(), keys, func(yield func(string, error) bool) { yield("", failure) }); !errors.Is(err, failure) {
			t.Errorf("a sequence that fails: %v", err)
		}
	})
}

func TestKeysAreRefused(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	log, err := sqlite.Open(filepath.Join(folder, "log.db"))
	must(t, err)
	defer log.Close()
	url := testserver.Postgres(t, testserver.Postgres18).Database(t)
	server, err := postgres.Config{Schema: "bank"}.Open(t.Context(), url)
	must(t, err)
	defer server.Close()
	used := sqliteKeys(t)
	used.keys(t)
	for what, test := range map[string]struct {
		d      keyDatabase
		master [32]byte
		says   string
	}{
		"in the file of a log":                       {keyDatabase{"sqlite3", filepath.Join(folder, "log.db")}, master, "the database has a log"},
		"in the database of a log":                   {keyDatabase{"pgx", url}, master, "the database has a log"},
		"with a master key of zeros":                 {sqliteKeys(t), [32]byte{}, "the master key is zero"},
		"with another master key":                    {used, [32]byte{9}, "the master key is not that of the database"},
		"with a master key of one byte's difference": {used, [32]byte{1, 2, 4}, "the master key is not that of the database"},
	} {
		if _, err := sealed.SQLKeys(t.Context(), test.d.connect(t), test.master); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("keys %s: got %v, want %q", what, err, test.says)
		}
	}
}

func TestADatabaseThatIsAwayIsNotTheValuesFault(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, d keyDatabase) {
		db := d.connect(t)
		keys, err := sealed.SQLKeys(t.Context(), db, master)
		must(t, err)
		v := seal(t, keys, user, "x")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		calls := func(ctx context.Context) map[string]error {
			_, opened := v.Open(ctx, keys)
			_, sealing := sealed.Seal(ctx, keys, "user/43", "x")
			return map[string]error{"Open": opened, "Seal": sealing, "Erase": keys.Erase(ctx, "user/44")}
		}
		for name, err := range calls(ctx) {
			if !errors.Is(err, context.Canceled) || errors.Is(err, es.ErrUnavailable) {
				t.Errorf("%s with a cancelled context: %v", name, err)
			}
		}
		must(t, db.Close())
		for name, err := range calls(t.Context()) {
			if !errors.Is(err, es.ErrUnavailable) {
				t.Errorf("%s without a database: %v", name, err)
			}
		}
	})
}

// The file of the keys has no trace of a key that was erased, not even in its encrypted form.
func TestAnErasedKeyIsOverwritten(t *testing.T) {
	t.Parallel()
	d := sqliteKeys(t)
	keys, db := d.keys(t), d.connect(t)
	seal(t, keys, user, "x")
	var box string
	must(t, db.QueryRowContext(t.Context(), "select box from sealed_keys").Scan(&box))
	path, _, _ := strings.Cut(d.name, "?")
	has := func() (has bool) {
		for _, name := range []string{path, path + "-wal"} {
			data, err := os.ReadFile(name)
			must(t, err)
			has = has || bytes.Contains(data, []byte(box))
		}
		return has
	}
	if !has() {
		t.Fatal("the test does not find the key where it is")
	}
	must(t, keys.Erase(t.Context(), user))
	if has() {
		t.Error("the files still have the key")
	}
}

func FuzzOpen(f *testing.F) {
	keys := sqliteKeys(f).keys(f)
	v := seal(f, keys, user, "ann@example.com")
	f.Add(v.Subject, v.Key, v.Box)
	f.Add("", "", "")
	f.Add(user, v.Key, v.Box[:20])
	f.Fuzz(func(t *testing.T, subject, key, box string) {
		changed := sealed.Value[string]{Subject: subject, Key: key, Box: box}
		got, err := changed.Open(t.Context(), keys)
		if (err == nil) != (changed == v) || err != nil && got != "" {
			t.Errorf("%+v: got %q, %v", changed, got, err)
		}
	})
}
