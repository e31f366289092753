package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
)

// loseTail deletes the records after a position, as a failover to a replica that was behind does.
func loseTail(t testing.TB, url string, behind es.Position) {
	t.Helper()
	run(t, url, "set es.change_history = 'on'", fmt.Sprintf("delete from es.events where position > %d", behind))
}

// A store that reads the new history before it appends must not mistake it for the one it knows. Otherwise it would append to a stream
// after versions that are lost.
func TestReadsDoNotHideALostTail(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		for _, test := range []struct {
			name   string
			behind es.Position // the last position that is left
			regrow []es.Append // by another store
		}{
			{"the log has grown past where it was", 5, []es.Append{at(account("new"), 0, 20)}},
			{"the stream too, to the same version", 5, []es.Append{at(account("lost"), 0, 5), at(account("new"), 0, 20)}},
			{"the log is shorter than it was", 5, []es.Append{at(account("new"), 0, 2)}},
			{"nothing is left", 0, []es.Append{at(account("new"), 0, 20)}},
		} {
			t.Run(test.name, func(t *testing.T) {
				empty(t, url)
				s := open(t, url)
				mustAppend(t, s, at(account("kept"), 0, 5))
				mustAppend(t, s, at(account("lost"), 0, 5))
				loseTail(t, url, test.behind)
				mustAppend(t, open(t, url), test.regrow...)

				collect(t, s.Read(t.Context(), account("new"), 0))
				with := es.Append{Stream: account("lost"), Expected: 5, Events: events(1), Command: "c"}
				for name, call := range map[string][]es.Append{
					"alone": {at(account("lost"), 5, 1)}, "with a command": {with}, "beside another": {at(account("beside"), 0, 1), at(account("lost"), 5, 1)},
				} {
					_, err := s.Append(t.Context(), call...)
					if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) || !errors.Is(err, es.ErrRewound) {
						t.Errorf("an append %s at a version that is lost: got %v, want a conflict and es.ErrRewound", name, err)
					}
				}
				for _, stream := range []es.Stream{account("new"), account("lost"), account("kept")} {
					head := es.Version(len(collect(t, s.Read(t.Context(), stream, 0))))
					appendOnceTold(t, s, at(stream, head, 1))
				}
				dense(t, s)
			})
		}
	})
}

// A conflict with a cached version that may be lost must be checked with the server.
func TestLostVersionsAreNotTakenForPast(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		for _, left := range []es.Version{0, 2} {
			t.Run(fmt.Sprintf("%d of five are left", left), func(t *testing.T) {
				empty(t, url)
				s := open(t, url)
				mustAppend(t, s, at(account("a"), 0, 5))
				loseTail(t, url, es.Position(left))
				if got := len(collect(t, s.Read(t.Context(), account("a"), 0))); got != int(left) {
					t.Fatalf("read %d records, want %d", got, left)
				}
				_, err := s.Append(t.Context(), at(account("a"), left, 1))
				if errors.Is(err, es.ErrRewound) { // and so read again
					collect(t, s.Read(t.Context(), account("a"), 0))
					_, err = s.Append(t.Context(), at(account("a"), left, 1))
				}
				if err != nil {
					t.Errorf("an append at the version that is left: %v", err)
				}
				dense(t, s)
			})
		}
	})
}

// The store detects the loss while a read is in flight.
func TestReadsInFlightWhenTheTailIsLost(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		for _, test := range []struct {
			name string
			own  bool // the store itself wrote what is lost, and so finds out
		}{{"of records that the store wrote", true}, {"of records that the store does not know", false}} {
			t.Run(test.name, func(t *testing.T) {
				empty(t, url)
				s, tap := tapped(t, url)
				mustAppend(t, s, at(account("kept"), 0, 5))
				if test.own {
					mustAppend(t, s, at(account("lost"), 0, 3))
				} else {
					mustAppend(t, open(t, url), at(account("lost"), 0, 3))
				}
				s.Pool().Reset() // the read opens a connection, whose first message has the name of the database, and so of the test
				arrived, release := tap.hold("lost")
				read := make(chan int)
				go func() {
					records, _ := drain(s.Read(t.Context(), account("lost"), 0))
					read <- len(records)
				}()
				<-arrived
				loseTail(t, url, 5)
				mustAppend(t, s, at(account("new"), 0, 1))
				release()
				if got := <-read; got != 3 {
					t.Fatalf("read %d records, want 3", got)
				}
				_, err := s.Append(t.Context(), at(account("lost"), 3, 1))
				if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) || errors.Is(err, es.ErrRewound) != test.own {
					t.Errorf("an append at a version that is lost: got %v, want a conflict", err)
				}
				dense(t, s)
			})
		}
	})
}
