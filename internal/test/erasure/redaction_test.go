package erasure_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/projection"
)

type named struct{ Name string }

type person struct {
	Name  string
	Count int
}

type people struct{}

func (people) Decide(_ person, command named) ([]named, error) { return []named{command}, nil }

func (people) Evolve(p person, event named) person {
	p.Count++
	if event.Name != "" {
		p.Name = event.Name
	}
	return p
}

var (
	codec = es.JSON(map[string]named{"named": {}})
	ann   = es.Stream{Kind: "person", ID: "ann"}
)

func process(s store) *es.Repo[person, named, named] {
	r := es.NewRepo(s, "person", people{}, codec)
	r.Snapshots, r.SnapshotEvery = s, 2
	return r
}

// TestRedactionReachesEveryCopy has a name in the log, a snapshot that was replaced several times, parked records, errors, a timer and the
// cached state of a process.
func TestRedactionReachesEveryCopy(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, db database) {
		name := "Ann " + rand.Text()
		writer, cached := process(db), process(db.open())
		_, err := writer.Execute(t.Context(), "ann", named{name}, es.Meta(map[string]string{"user": name}))
		must(t, err)
		for range 6 {
			_, err := writer.Execute(t.Context(), "ann", named{})
			must(t, err)
		}
		for i := range 20 { // others share its pages
			_, err := writer.Execute(t.Context(), fmt.Sprint("other", i), named{strings.Repeat("x", 300)})
			must(t, err)
		}
		before, err := cached.Load(t.Context(), "ann")
		must(t, err)
		must(t, cached.Close(t.Context()))
		must(t, writer.Close(t.Context()))

		failing := func(r es.Record) error {
			if r.Version == 1 && r.Stream == ann && r.Type == "named" {
				return fmt.Errorf("cannot greet %s", r.Data)
			}
			return nil
		}
		must(t, db.project(t.Context(), true, "parks", es.Park, failing))
		if err := db.project(t.Context(), true, "stops", es.Stop, failing); err == nil {
			t.Fatal("the projection did not stop")
		}
		now, due := time.Now(), time.Now().Add(time.Hour)
		var fired []string
		reminder := projection.Reaction{
			Name: "reminds", From: projection.Beginning(), Once: true, Now: func() time.Time { return now },
			Due: func(es.Record) (time.Time, error) { return due, nil },
			Handle: func(_ context.Context, r es.Record) error {
				fired = append(fired, r.Type)
				return nil
			},
		}
		must(t, db.React(t.Context(), reminder))
		_, err = db.store.(es.Leases).AcquireLease(t.Context(), "relay/bank/relay", "host", time.Hour, "")
		must(t, err)
		_, err = db.store.(es.Checkpoints).MoveCheckpoint(t.Context(), "relay/shop/relay", 0, 1)
		must(t, err)
		if len(db.rows(name)) == 0 || len(db.files(name)) == 0 {
			t.Fatal("the test does not find the name where it is")
		}

		// A projection that has read the record before, and parks it afterwards.
		var erased atomic.Bool
		read := make(chan struct{})
		late := make(chan error, 1)
		go func() {
			first := true
			late <- db.project(t.Context(), true, "late", es.Park, func(r es.Record) error {
				switch {
				case r.Stream != ann || r.Version != 1:
					return nil
				case first:
					close(read)
					first = false
				}
				if !erased.Load() {
					return es.ErrUnavailable // it is tried again
				}
				return fmt.Errorf("cannot greet %s", r.Data)
			})
		}()
		<-read
		done, err := db.Redact(t.Context(), ann, 1, "request 17")
		must(t, err)
		erased.Store(true)
		must(t, <-late)

		if done.Snapshots != 1 || done.Parked != 1 || done.Timers != 1 || done.Audit != before.Version+1 {
			t.Errorf("got %+v", done)
		}
		for _, copies := range []string{"read model parks", "read model stops", "reaction reminds", "such as bank/relay and shop/relay", "backups", "the id of the stream"} {
			if !slices.ContainsFunc(done.Unreached, func(s string) bool { return strings.Contains(s, copies) }) {
				t.Errorf("what is not reached does not have %s: %q", copies, done.Unreached)
			}
		}
		parked := 0
		for p, err := range db.Parked(t.Context()) {
			must(t, err)
			if p.Record.Stream == ann && p.Record.Version == 1 {
				parked++
				if p.Record.Type != es.TypeRedacted || len(p.Record.Data) > 0 || p.Record.Meta != nil || p.Error != "erased" {
					t.Errorf("parked by %s: %+v", p.Name, p)
				}
			}
		}
		if parked != 2 {
			t.Errorf("%d projections have parked the record, want 2", parked)
		}
		for _, name := range []string{"parks", "late"} {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- db.project(ctx, false, name, es.Park, failing) }()
			must(t, db.Retry(t.Context(), name, 0, ann))
			eventually.True(t, "no record is parked", func() bool {
				for p, err := range db.Parked(t.Context()) {
					if err != nil || p.Name == name {
						return false
					}
				}
				return true
			})
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		must(t, db.project(t.Context(), true, "stops", es.Stop, failing))
		now = due
		must(t, db.React(t.Context(), reminder))
		if !slices.Contains(fired, es.TypeRedacted) {
			t.Errorf("the timer of the record did not fire: %v", fired)
		}
		for _, r := range []*es.Repo[person, named, named]{process(db), process(db.open())} {
			result, err := r.Execute(t.Context(), "ann", named{})
			if err != nil || result.State.Name != "" {
				t.Errorf("got %+v, %v", result, err)
			}
			must(t, r.Close(t.Context()))
		}
		eventually.True(t, "no reader keeps the write-ahead log", func() bool {
			again, err := db.Redact(t.Context(), ann, 1, "request 17")
			if err != nil || !again.Repeated || again.Audit != done.Audit {
				t.Fatalf("a second redaction: got %+v, %v", again, err)
			}
			return !slices.ContainsFunc(again.Unreached, func(s string) bool { return strings.Contains(s, "because a reader is at work") })
		})
		if found := db.rows(name); len(found) > 0 {
			t.Errorf("the name is still in %v", found)
		}
		db.clean()
		if found := db.files(name); len(found) > 0 {
			t.Errorf("the name is still in %v", found)
		}
	})
}

// The tags of an older event are added later, and it may have none. A redaction of such an event is not refused for its lack of tags.
func TestRedactionOfAnEventWithoutTags(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, db database) {
		for _, tags := range [][]string{nil, {"team:1"}} {
			if tags != nil {
				must(t, db.store.(interface {
					AddTags(ctx context.Context, kind string, tags func(r es.Record) ([]string, error)) error
				}).AddTags(t.Context(), "person", func(es.Record) ([]string, error) { return nil, nil }))
			}
			_, err := db.Append(t.Context(), es.Append{Stream: ann, Expected: es.AnyVersion, Events: []es.Record{{Type: "named", Data: []byte("{}"), Tags: tags}}})
			must(t, err)
		}
		_, err := db.Redact(t.Context(), ann, 1, "request 17")
		must(t, err)
		_, err = db.Append(t.Context(), es.Append{Stream: ann, Expected: es.AnyVersion, Events: []es.Record{{Type: "named", Data: []byte("{}")}}})
		if !errors.Is(err, es.ErrInvalid) {
			t.Errorf("an event without tags was accepted after a redaction: %v", err)
		}
	})
}
