package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
)

func TestClose(t *testing.T) {
	t.Run("closes all files, and leaves the whole log in one", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		add(t, s, command("a", 0, "c", "one"))
		add(t, s, at("a", 1, "two"))
		all(t, s)
		if err := s.SaveSnapshot(t.Context(), es.Snapshot{Stream: stream("a"), Version: 2}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if left := openFiles(t, path); len(left) > 0 {
			t.Errorf("still open: %q", left)
		}
		if names := folder(t, path); len(names) != 1 {
			t.Errorf("the folder has %q; expected the database alone, its write-ahead log brought into it", names)
		}
		expectTexts(t, open(t, path), "one", "two")
	})
	t.Run("may be called again, also concurrently", func(t *testing.T) {
		for _, path := range []string{file(t), ":memory:"} {
			s := open(t, path)
			add(t, s, at("a", 0, "one"))
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
	})
	t.Run("waits for appends in flight, whose verdicts are correct", func(t *testing.T) {
		path := file(t)
		s := open(t, path)
		var wg sync.WaitGroup
		var mu sync.Mutex
		acknowledged := make(map[string]bool)
		started := make(chan struct{}, 64)
		for w := range 16 {
			wg.Go(func() {
				id := string(rune('a' + w))
				for v := es.Version(0); ; v++ {
					_, err := s.Append(t.Context(), at(id, v, id))
					if err != nil {
						expectError(t, err, es.ErrClosed)
						return
					}
					mu.Lock()
					acknowledged[es.Record{Stream: stream(id), Version: v + 1}.ID()] = true
					mu.Unlock()
					if v == 0 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 16 {
			<-started
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		for _, r := range all(t, open(t, path)) {
			if !acknowledged[r.ID()] {
				t.Errorf("%s is there but its caller was told that it is not", r.ID())
			}
			delete(acknowledged, r.ID())
		}
		for id := range acknowledged {
			t.Errorf("%s was acknowledged and is not there", id)
		}
	})
}

func TestClosed(t *testing.T) {
	t.Run("rejects later calls", func(t *testing.T) {
		for _, path := range []string{file(t), ":memory:"} {
			s := open(t, path)
			add(t, s, at("a", 0, "one"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			_, err := s.Append(ctx, at("a", 1, "two"))
			expectError(t, err, es.ErrClosed)
			for _, err := range s.Read(ctx, stream("a"), 0) {
				expectError(t, err, es.ErrClosed)
			}
			for _, err := range s.All(ctx, 0, es.Filter{}) {
				expectError(t, err, es.ErrClosed)
			}
			for _, err := range s.All(ctx, 0, es.Filter{Types: []string{"t"}}) {
				expectError(t, err, es.ErrClosed)
			}
			_, err = s.Changed(ctx, 0)
			expectError(t, err, es.ErrClosed)
			_, err = es.Head(ctx, s)
			expectError(t, err, es.ErrClosed)
			expectError(t, s.SaveSnapshot(ctx, es.Snapshot{Stream: stream("a"), Version: 1}), es.ErrClosed)
			_, err = s.LoadSnapshot(ctx, stream("a"))
			expectError(t, err, es.ErrClosed)
			expectError(t, s.Backup(ctx, file(t)), es.ErrClosed)
		}
	})
	t.Run("ends waiting calls of Changed, and starts no goroutine for later ones", func(t *testing.T) {
		for _, path := range []string{file(t), ":memory:"} {
			for range 20 {
				s := open(t, path)
				head, err := es.Head(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						_, err := s.Changed(t.Context(), head)
						expectError(t, err, es.ErrClosed)
					})
				}
				runtime.Gosched()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				wg.Wait()
			}
		}
	})
	t.Run("ends an iteration over the log at its next page", func(t *testing.T) {
		s := open(t, file(t))
		var events []string
		for range 5000 {
			events = append(events, "")
		}
		add(t, s, at("a", 0, events...))
		var last error
		for _, err := range s.All(context.Background(), 0, es.Filter{}) {
			last = err
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		expectError(t, last, es.ErrClosed)
	})
}

// openFiles returns the open files of this process whose names begin with a path, if the system has such a list.
func openFiles(t *testing.T, path string) (names []string) {
	t.Helper()
	links, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, link := range links {
		if name, err := os.Readlink(filepath.Join("/proc/self/fd", link.Name())); err == nil && strings.HasPrefix(name, path) {
			names = append(names, name)
		}
	}
	return names
}

// folder returns the names of the files in the folder of a file.
func folder(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
