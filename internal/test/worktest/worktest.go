//go:build unix

// Package worktest tests projections that several processes run, of which some are killed and some are paused, the same way for each backend.
package worktest

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
	"github.com/thalo-go/es/projection"
)

// A Backend is a database to test.
type Backend struct {
	// Database makes a fresh one, with a store on it. Each call of start starts another process, which is given these arguments and
	// runs what Projection makes of them until it is killed, at the end of the test at the latest.
	Database func(t *testing.T) (s Store, start func(arguments ...string) Process)

	// Lines returns what was added to the read model, in order.
	Lines func(t *testing.T, s Store) []string

	// Pauses are where a process can be paused without keeping others from working.
	Pauses []Pause
}

// A Store is what a backend opens.
type Store interface {
	es.Log

	// WaitFor is as in projection.Projections.
	WaitFor(ctx context.Context, name string, position es.Position) error

	// Status is as in projection.Projections.
	Status(ctx context.Context) ([]projection.Status, error)
}

// A Process is another one, which works.
type Process struct {
	*os.Process
	Paused <-chan struct{} // closed when it is for the first time; it is paused again at every such place
}

// A Pause is where a process pauses itself.
type Pause string

// Pauses. A process that pauses says where, on a line of its own.
const (
	Nowhere Pause = "nowhere"
	Within  Pause = "within"  // a transaction
	Between Pause = "between" // two of them
)

const name = "work"

// Projection is what a process runs, as its arguments say: one that adds the ID of each record to the read model.
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
	stand := func(at Pause) {
		if Pause(arguments[2]) == at {
			fmt.Fprintln(os.Stdout, at)
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // it goes on if it cannot be paused
		}
	}
	return projection.Projection[Tx]{
		Name: name, Partitions: partitions, Batch: 5, Lease: lease, Prepare: prepare,
		Handle: func(ctx context.Context, tx Tx, records []es.Record) error {
			for _, r := range records {
				if err := add(ctx, tx, r.ID()); err != nil {
					return err
				}
			}
			stand(Within)
			return nil
		},
		OnProgress: func(projection.Progress) { stand(Between) },
	}, nil
}

// Run runs all tests.
func Run(t *testing.T, b Backend) {
	t.Run("that are killed, again and again, apply every record once", func(t *testing.T) {
		f := newFixture(t, b)
		var running []Process
		var last es.Position
		for i := range 7 {
			running = append(running, f.start("3", "600ms", string(Nowhere)))
			for k := range 25 {
				last = f.add(fmt.Sprint(k%7), 1+k%3)
			}
			f.reach(last / 2) // so that somebody has worked before the next one is killed
			if i >= 2 {
				if err := running[i-2].Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.reach(last)
		f.check()
	})
	for _, where := range b.Pauses {
		t.Run("of which one is paused "+string(where)+" transactions, and another takes its place, apply every record once", func(t *testing.T) {
			f := newFixture(t, b)
			last := f.add("a", 100)
			paused := f.start("1", "1s", string(where))
			select {
			case <-paused.Paused:
			case <-time.After(3 * time.Minute):
				t.Fatal("it has not come to where it pauses")
			}
			f.start("1", "1s", string(Nowhere))
			f.reach(last)
			// It wakes in the middle of what it was doing, and pauses again at the next such place, until it has been beaten.
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for range 200 {
					_ = paused.Signal(syscall.SIGCONT) // it may be gone
					select {
					case <-time.After(5 * time.Millisecond):
					case <-t.Context().Done():
						return
					}
				}
			}()
			f.add("a", 60)
			f.reach(f.add("b", 40))
			<-ended
			f.reach(f.add("c", 10))
			f.check()
		})
	}
}

// A fixture is one database.
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

// add appends so many events to a stream.
func (f *fixture) add(id string, n int) es.Position {
	f.Helper()
	a := es.Append{Stream: es.Stream{Kind: "account", ID: id}, Expected: es.AnyVersion, Events: make([]es.Record, n)}
	for i := range a.Events {
		a.Events[i].Type = "happened"
	}
	position, err := f.Append(f.Context(), a)
	if err != nil {
		f.Fatal(err)
	}
	return position
}

// reach waits until the read model is there and has come to a position.
func (f *fixture) reach(position es.Position) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 3*time.Minute)
	defer cancel()
	for {
		err := f.WaitFor(ctx, name, position)
		if err == nil {
			return
		}
		status, _ := f.Status(f.Context())
		if len(status) > 0 || ctx.Err() != nil {
			f.Fatalf("%v\n%+v", err, status)
		}
		time.Sleep(10 * time.Millisecond) // nobody tells when the first process has come to it
	}
}

// check fails the test unless each record is in the read model once, and those of each stream in order.
func (f *fixture) check() {
	f.Helper()
	lines := f.lines(f.T, f.Store)
	versions := make(map[string]int)
	for _, line := range lines {
		i := strings.LastIndexByte(line, '/')
		versions[line[:i]]++
		if line[i+1:] != strconv.Itoa(versions[line[:i]]) {
			f.Fatalf("%s is applied where version %d of its stream should be", line, versions[line[:i]])
		}
	}
	head, err := es.Head(f.Context(), f.Store)
	if err != nil || len(lines) != int(head) {
		f.Errorf("%d records are applied of %d: %v", len(lines), head, err)
	}
}
