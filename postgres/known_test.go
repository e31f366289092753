package postgres_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/testserver"
)

// loseTail makes a database as it is after a failover to a replica that had not yet got what stands behind a position.
func loseTail(t testing.TB, url string, behind es.Position) {
	t.Helper()
	run(t, url, "set es.change_history = 'on'", fmt.Sprintf("delete from es.events where position > %d", behind))
}

// A store that has read the new history before it appended anything must not take it for the one it knows: it would continue a stream
// behind versions that are lost.
func TestReadsDoNotHideALostTail(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for _, test := range []struct {
			name   string
			behind es.Position // what is left
			regrow int         // by another store
		}{
			{"the log has grown past where it was", 5, 20},
			{"the log is shorter than it was", 5, 2},
			{"nothing is left", 0, 20},
		} {
			t.Run(test.name, func(t *testing.T) {
				url := server.Database(t)
				s := open(t, url)
				mustAppend(t, s, at(account("kept"), 0, 5))
				mustAppend(t, s, at(account("lost"), 0, 5))
				loseTail(t, url, test.behind)
				mustAppend(t, open(t, url), at(account("new"), 0, test.regrow))

				if got := len(collect(t, s.Read(t.Context(), account("new"), 0))); got != test.regrow {
					t.Fatalf("read %d records, want %d", got, test.regrow)
				}
				with := es.Append{Stream: account("lost"), Expected: 5, Events: events(1), Command: "c"}
				for name, call := range map[string][]es.Append{
					"alone": {at(account("lost"), 5, 1)}, "with a command": {with}, "beside another": {at(account("beside"), 0, 1), at(account("lost"), 5, 1)},
				} {
					_, err := s.Append(t.Context(), call...)
					if conflict := (*es.ConflictError)(nil); !errors.As(err, &conflict) || !errors.Is(err, es.ErrRewound) {
						t.Errorf("an append %s at a version that is lost: got %v, want a conflict and es.ErrRewound", name, err)
					}
				}
				collect(t, s.Read(t.Context(), account("new"), 0))
				mustAppend(t, s, at(account("new"), es.Version(test.regrow), 1))
				mustAppend(t, s, at(account("lost"), 0, 1))
				dense(t, s)
			})
		}
	})
}

// Nobody would be told that a stream is past a version if it no longer is, were that not asked about.
func TestLostVersionsAreNotTakenForPast(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		for _, left := range []es.Version{0, 2} {
			t.Run(fmt.Sprintf("%d of five are left", left), func(t *testing.T) {
				url := server.Database(t)
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
