package testserver_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/internal/test/testserver"
)

func TestProxy(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	proxy := testserver.StartProxy(t, url)
	through := proxy.Through(url)

	t.Run("forwards", func(t *testing.T) {
		if got := scalar[int](t, through, "select length(repeat('x', 1000000))"); got != 1000000 {
			t.Errorf("got %d", got)
		}
	})
	t.Run("cuts open connections and accepts new ones", func(t *testing.T) {
		c := connect(t, through)
		proxy.Cut()
		if _, err := c.Exec(t.Context(), "select 1"); err == nil {
			t.Error("the connection still works")
		}
		scalar[int](t, through, "select 1")
	})
	t.Run("refuses new connections and keeps open ones", func(t *testing.T) {
		c := connect(t, through)
		proxy.Refuse()
		if _, err := pgx.Connect(t.Context(), through); err == nil {
			t.Error("a connection was accepted")
		}
		if _, err := c.Exec(t.Context(), "select 1"); err != nil {
			t.Errorf("the old connection: %v", err)
		}
		proxy.Heal(t)
		scalar[int](t, through, "select 1")
	})
	t.Run("delays answers", func(t *testing.T) {
		c := connect(t, through)
		const by = 50 * time.Millisecond
		proxy.Delay(by)
		defer proxy.Heal(t)
		begin := time.Now()
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < by {
			t.Errorf("an answer took %v", took)
		}
	})
	t.Run("directs clients to another server", func(t *testing.T) {
		proxy.Target("127.0.0.1:1")
		if _, err := pgx.Connect(t.Context(), through); err == nil {
			t.Error("connected to nothing")
		}
		proxy.Target(url)
		scalar[int](t, through, "select 1")
	})
}

func TestProxyStall(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	url := server.Database(t)
	exec(t, url, "create table log (name text)")
	proxy := testserver.StartProxy(t, url)
	through := proxy.Through(url)

	t.Run("holds everything back and forwards it when healed", func(t *testing.T) {
		c := connect(t, through)
		proxy.Stall()
		answered := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "insert into log values ('stalled')")
			answered <- err
		}()
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := pgx.Connect(short, through); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a new connection: %v", err)
		}
		select {
		case err := <-answered:
			t.Fatalf("an answer came through: %v", err)
		default:
		}
		if count(t, url, "stalled") != 0 {
			t.Error("the request came through")
		}
		proxy.Heal(t)
		if err := <-answered; err != nil {
			t.Errorf("after healing: %v", err)
		}
	})
	t.Run("can be cut", func(t *testing.T) {
		c := connect(t, through)
		proxy.Stall()
		answered := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "select 1")
			answered <- err
		}()
		proxy.Cut()
		if err := <-answered; err == nil {
			t.Error("an answer came through")
		}
		proxy.Heal(t)
	})
}

func TestLostAnswer(t *testing.T) {
	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
		url := server.Database(t)
		exec(t, url, "create table log (name text, filler text)")
		proxy := testserver.StartProxy(t, url)
		through := proxy.Through(url)

		// The outcome depends on timing, so try both sizes several times.
		for attempt := range 8 {
			for size, filler := range map[string]int{"small": 10, "large": 1 << 20} {
				name := fmt.Sprintf("%s %d", size, attempt)
				insert := func() error {
					c := connect(t, through)
					defer c.Close(t.Context())
					// The server starts to answer, which fills many of its buffers, well before it commits.
					_, err := c.Exec(t.Context(), `with inserted as (insert into log values ($1, $2))
						select repeat('z', 100000), pg_sleep(0.002) from generate_series(1, 5)`, name, strings.Repeat("y", filler))
					return err
				}
				lost := proxy.LoseRequest(name)
				scalar[int](t, through, "select 1") // another request, which is forwarded
				if err := insert(); err == nil {
					t.Fatalf("%s: the insert whose request was lost succeeded", name)
				}
				<-lost
				if count(t, url, name) != 0 {
					t.Fatalf("%s: the request that was lost came through", name)
				}

				lost = proxy.LoseAnswer(name)
				if err := insert(); err == nil {
					t.Fatalf("%s: the insert whose answer was lost succeeded", name)
				}
				<-lost
				if count(t, url, name) != 1 {
					t.Fatalf("%s: the request whose answer was lost did not come through", name)
				}
				if err := insert(); err != nil {
					t.Fatalf("%s: the next insert: %v", name, err)
				}
			}
		}
	})
}

func count(t *testing.T, url, name string) int {
	t.Helper()
	return scalar[int](t, url, "select count(*) from log where name = $1", name)
}
