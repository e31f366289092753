//go:build unix

// Package processtest tests projections that several processes run while some of them are killed or paused. The tests are the same
// for each backend.
//
// They are not a suite of package conformance, because a backend has to start its test binary again as another process, which stops
// itself with a signal of Unix. That protocol should not become public API.
package processtest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/projection"
)

// Backend is a database to test.
type Backend struct {
	// Database creates an empty database and opens a store on it. Each call of start starts another process, which gets the arguments,
	// passes them to Projection, and runs the projection until it is killed, which is at the end of the test at the latest.
	Database func(t *testing.T) (s Store, start func(arguments ...string) Process)

	// Lines returns the lines of the read model in the order in which they were added.
	Lines func(t *testing.T, s Store) []string

	// Pauses are the places where a process can be paused without blocking the other processes.
	Pauses []Pause
}

// Store is the store that a backend opens.
type Store interface {
	es.Log

	// WaitFor is as in projection.Projections.
	WaitFor(ctx context.Context, name string, position es.Position) error

	// Status is as in projection.Projections.
	Status(ctx context.Context) ([]projection.Status, error)
}

// Process is another process that runs the projection.
type Process struct {
	*os.Process
	Paused <-chan struct{} // closed when the process has paused for the first time; it pauses again at every such place
}

// Pause is a place where a process pauses itself.
type Pause string

// The places where a process can pause. It prints the place on a line before it pauses.
const (
	Nowhere Pause = "nowhere"
	Within  Pause = "within"  // within a transaction
	Between Pause = "between" // between two transactions
)

// Older is in place of a pause. The process is of an older release, which does not know the type of some events.
const Older Pause = "older"

const newer = "newer" // the type

const name = "work"

// Projection returns the projection that a process with these arguments runs. It adds the ID of each record to the read model.
func Projection[Tx any](arguments []string, prepare func(ctx context.Context, tx Tx) error, add func(ctx context.Context, tx Tx, line string) error) (projection.Projection[Tx], error) {
	var p projection.Projection[Tx]
	partitions, err := strconv.Atoi(arguments[0])
	if err != nil {
		return p, err
	}
	lease, err := time.ParseDuration(arguments[1])
	if err != nil {
		return p, err
	}
	pause := func(at Pause) {
		if Pause(arguments[2]) == at {
			fmt.Fprintln(os.Stdout, at)
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // if that fails, the process continues
		}
	}
	return projection.Projection[Tx]{
		Name: name, Partitions: partitions, Batch: 5, Lease: lease, Prepare: prepare,
		OnError: es.Park, Retries: -1,
		Handle: func(ctx context.Context, tx Tx, records []es.Record) error {
			for _, r := range records {
				if Pause(arguments[2]) == Older && r.Type == newer {
					return &es.UnknownEventError{Type: r.Type}
				}
				if err := add(ctx, tx, r.ID()); err != nil {
					return err
				}
			}
			pause(Within)
			return nil
		},
		OnProgress: func(projection.Progress) { pause(Between) },
	}, nil
}

// Run runs the tests on a backend.
func Run(t *testing.T, b Backend) {
	t.Run("killed processes apply every record once", func(t *testing.T) {
		f := newFixture(t, b)
		var running []Process
		var last es.Position
		for i := range 7 {
			running = append(running, f.start("3", "600ms", string(Nowhere)))
			for k := range 25 {
				last = f.add(fmt.Sprint(k%7), 1+k%3)
			}
			f.reach(last / 2) // so that some work is done before the next process is killed
			if i >= 2 {
				if err := running[i-2].Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.reach(last)
		f.check()
	})
	t.Run("killed processes of an older release leave unknown event types to a newer one", func(t *testing.T) {
		f := newFixture(t, b)
		var running []Process
		var last es.Position
		for i := range 8 {
			release := Older
			if i%2 == 1 {
				release = Nowhere
			}
			running = append(running, f.start("3", "600ms", string(release)))
			for k := range 20 {
				f.addOf(newer, fmt.Sprint(k%7), 1)
				last = f.add(fmt.Sprint(k%7), 1+k%3)
			}
			if i >= 1 {
				f.reach(last / 2) // so that some work is done before the next process is killed
			}
			if i >= 3 {
				if err := running[i-3].Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.reach(last)
		f.check()
	})
	for _, where := range b.Pauses {
		t.Run("process paused "+string(where)+" transactions applies nothing after it was replaced", func(t *testing.T) {
			f := newFixture(t, b)
			last := f.add("a", 100)
			paused := f.start("1", "1s", string(where))
			select {
			case <-paused.Paused:
			case <-time.After(3 * time.Minute):
				t.Fatal("the process has not paused within 3m")
			}
			f.start("1", "1s", string(Nowhere))
			f.reach(last)
			// The process continues where it was paused and pauses again at the next such place, until it notices that it was replaced.
			resumed := make(chan struct{})
			go func() {
				defer close(resumed)
				for range 200 {
					_ = paused.Signal(syscall.SIGCONT) // the process may have ended
					select {
					case <-time.After(5 * time.Millisecond):
					case <-t.Context().Done():
						return
					}
				}
			}()
			f.add("a", 60)
			f.reach(f.add("b", 40))
			<-resumed
			f.reach(f.add("c", 10))
			f.check()
		})
	}
}

// fixture is one database and the test that uses it.
type fixture struct {
	*testing.T
	Store
	start func(arguments ...string) Process
	lines func(t *testing.T, s Store) []string
}

func newFixture(t *testing.T, b Backend) *fixture {
	s, start := b.Database(t)
	return &fixture{t, s, start, b.Lines}
}

// add appends n events to a stream.
func (f *fixture) add(id string, n int) es.Position {
	f.Helper()
	return f.addOf("happened", id, n)
}

// addOf appends n events of a type to a stream.
func (f *fixture) addOf(eventType, id string, n int) es.Position {
	f.Helper()
	a := es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: es.AnyVersion, Events: make([]es.Record, n)}
	for i := range a.Events {
		a.Events[i].Type = eventType
	}
	position, err := f.Append(f.Context(), a)
	if err != nil {
		f.Fatal(err)
	}
	return position
}

// reach waits until the read model exists and has applied everything up to a position.
func (f *fixture) reach(position es.Position) {
	f.Helper()
	eventually.True(f, "the projection exists", func() bool {
		status, err := f.Status(f.Context())
		return err == nil && len(status) > 0
	})
	ctx, cancel := context.WithTimeout(f.Context(), 3*time.Minute)
	defer cancel()
	if err := f.WaitFor(ctx, name, position); err != nil {
		status, _ := f.Status(f.Context())
		f.Fatalf("%v\n%+v", err, status)
	}
}

// check fails the test unless the read model has each record once and each stream in order.
func (f *fixture) check() {
	f.Helper()
	lines := f.lines(f.T, f.Store)
	versions := make(map[string]int)
	for _, line := range lines {
		i := strings.LastIndexByte(line, '/')
		versions[line[:i]]++
		if line[i+1:] != strconv.Itoa(versions[line[:i]]) {
			f.Fatalf("%s is applied in place of version %d of its stream", line, versions[line[:i]])
		}
	}
	head, err := es.Head(f.Context(), f.Store)
	if err != nil || len(lines) != int(head) {
		f.Errorf("%d of %d records are applied: %v", len(lines), head, err)
	}
}
