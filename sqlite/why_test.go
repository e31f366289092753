package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// A worker that cannot write has no sign of life either. Why names it, so that the operator looks at more than its process.
func TestWhyNamesAWorkerThatCannotWrite(t *testing.T) {
	path := file(t)
	s, err := sqlite.Config{BusyTimeout: 50 * time.Millisecond}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	fails := fmt.Errorf("mail: %w", es.ErrUnavailable) // tried again without limit
	go func() {
		ended <- s.Project(ctx, sqlite.Projection{Name: "mute", Lease: 300 * time.Millisecond, Handle: func(context.Context, *sql.Tx, []es.Record) error { return fails }})
	}()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	add(t, s, at("a", 0, "first"))
	worker := ""
	eventually.True(t, "the projection has a worker, which has tried", func() bool {
		all, err := s.Status(t.Context())
		if err == nil && len(all) == 1 && all[0].Error != "" {
			worker = all[0].Worker
		}
		return worker != ""
	})
	lock := connect(t, path)
	eventually.True(t, "another process has the lock", func() bool {
		_, err := lock.ExecContext(t.Context(), "begin immediate")
		return err == nil
	})
	var last projection.Cause
	eventually.True(t, "Why says that there is no worker", func() bool {
		last, err = s.Why(t.Context(), "mute", 0)
		return err == nil && last.Code == projection.CauseNoWorker
	})
	if !strings.Contains(last.Message, worker) || !strings.Contains(last.Remedy, "read-only or full") || last.Since.IsZero() {
		t.Errorf("Why says %+v, want worker %s", last, worker)
	}
	if _, err := lock.ExecContext(t.Context(), "rollback"); err != nil {
		t.Fatal(err)
	}
}
