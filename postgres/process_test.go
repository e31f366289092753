package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/postgres"
)

// raceInChild appends from several goroutines to streams that other processes append to as well.
func raceInChild(ctx context.Context, arguments []string) error {
	s, err := postgres.Open(ctx, arguments[0])
	if err != nil {
		return err
	}
	rounds, err := strconv.Atoi(arguments[2])
	if err != nil {
		return err
	}
	const writers = 8
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			r := racer{s, fmt.Sprint(arguments[1], ".", w)}
			var err error
			for i := 0; i < rounds && err == nil; i++ {
				err = r.round(ctx, i)
			}
			done <- err
		}()
	}
	var errs []error
	for range writers {
		errs = append(errs, <-done)
	}
	return errors.Join(append(errs, s.Close())...)
}

// followToTheEndInChild follows a log and prints each record up to the last one of the test.
func followToTheEndInChild(ctx context.Context, arguments []string) error {
	s, err := postgres.Open(ctx, arguments[0])
	if err != nil {
		return err
	}
	child.Say("ready")
	for r, err := range es.Follow(ctx, s, 0, es.Filter{}) {
		if err != nil {
			return err
		}
		child.Say(r.Position, r.ID(), string(r.Data))
		if r.Type == "end" {
			break
		}
	}
	return s.Close()
}

// A racer is one of several writers in a process.
type racer struct {
	store *postgres.Store
	name  string
}

// round appends to shared streams at their versions, so that most racers get conflicts, and a command that only one racer can append.
func (r racer) round(ctx context.Context, i int) error {
	data := fmt.Sprint(r.name, ".", i)
	event := func(suffix string) []es.Record { return []es.Record{{Type: "t", Data: []byte(data + suffix)}} }
	stream := account(fmt.Sprint(i % 3))
	for tries := 0; ; tries++ {
		records, err := drain(r.store.Read(ctx, stream, 0))
		if err != nil {
			return err
		}
		position, err := r.store.Append(ctx, es.Append{Stream: stream, Expected: es.Version(len(records)), Events: event("a")},
			es.Append{Stream: account(data), Expected: 0, Events: event("b")})
		if conflict := (*es.ConflictError)(nil); errors.As(err, &conflict) && tries < 1000 {
			continue
		} else if err != nil {
			return err
		}
		child.Say(position-1, data+"a")
		child.Say(position, data+"b")
		break
	}
	position, err := r.store.Append(ctx, es.Append{Stream: account("commands"), Expected: es.AnyVersion, Events: event("c"), Command: fmt.Sprint(i)})
	if duplicate := (*es.DuplicateError)(nil); errors.As(err, &duplicate) {
		return nil
	} else if err != nil {
		return err
	}
	child.Say(position, data+"c")
	return nil
}

// Several processes write to one database and another follows it. Each acknowledged append is there once, at its acknowledged position.
// Positions and versions have no gaps. The follower sees all records in order.
func TestProcesses(t *testing.T) {
	t.Parallel()
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		const processes, rounds, writers = 3, 6, 8
		url := server.Database(t)
		s := open(t, url)
		follower := child.Start(t, "follower", url)
		if line := follower.Line(t); line != "ready" {
			t.Fatal(line)
		}
		var racers []*child.Process
		for i := range processes {
			racers = append(racers, child.Start(t, "racer", url, fmt.Sprint("p", i), fmt.Sprint(rounds)))
		}
		acknowledged := make(map[string]string) // data by position
		for _, c := range racers {
			for _, line := range c.Finish(t) {
				position, data, _ := strings.Cut(line, " ")
				if other, taken := acknowledged[position]; taken {
					t.Errorf("position %s was given to %s and to %s", position, other, data)
				}
				acknowledged[position] = data
			}
		}
		mustAppend(t, s, es.Append{Stream: account("end"), Expected: 0, Events: []es.Record{{Type: "end"}}})
		all := dense(t, s)
		if want := processes*writers*rounds*2 + rounds + 1; len(all) != want || len(acknowledged) != want-1 {
			t.Errorf("%d events were acknowledged and there are %d, want %d and %d", len(acknowledged), len(all), want-1, want)
		}
		seen := follower.Finish(t)
		if len(seen) != len(all) {
			t.Fatalf("the follower saw %d records of %d", len(seen), len(all))
		}
		for i, r := range all {
			if want := fmt.Sprintf("%d %s %s", r.Position, r.ID(), r.Data); seen[i] != want {
				t.Fatalf("the follower saw %q, want %q", seen[i], want)
			}
			if data := acknowledged[fmt.Sprint(r.Position)]; data != string(r.Data) {
				t.Fatalf("position %d has %s, and was acknowledged for %s", r.Position, r.Data, data)
			}
		}
	})
}
