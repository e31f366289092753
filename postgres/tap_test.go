package postgres_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es/postgres"
)

// A tap sits on a store's connections: it counts what goes out and holds back what comes in.
type tap struct {
	mu         sync.Mutex
	out        int    // writes, each a round trip
	in         int    // bytes
	containing []byte // of the request whose answer is to be held back
	arrived    chan struct{}
	released   chan struct{}
}

// tapped opens a store with a tap on its connections.
func tapped(t testing.TB, c postgres.Config, url string) (*postgres.Store, *tap) {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	p := new(tap)
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &tappedConn{Conn: conn, tap: p}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s, err := c.New(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, p
}

// hold holds back the answer to the next request that contains a text. arrived is closed when the server has given it; release lets it through.
func (p *tap) hold(containing string) (arrived <-chan struct{}, release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containing, p.arrived, p.released = []byte(containing), make(chan struct{}), make(chan struct{})
	released := p.released
	return p.arrived, func() { close(released) }
}

// sent tells how much was sent so far.
func (p *tap) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// received tells how many bytes have come so far.
func (p *tap) received() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in
}

type tappedConn struct {
	net.Conn
	tap *tap

	mu                sync.Mutex
	arrived, released chan struct{} // if its next answer is to be held back
}

func (c *tappedConn) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.out++
	if c.tap.containing != nil && bytes.Contains(b, c.tap.containing) {
		c.mu.Lock()
		c.arrived, c.released = c.tap.arrived, c.tap.released
		c.mu.Unlock()
		c.tap.containing = nil
	}
	c.tap.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.mu.Lock()
	c.tap.in += n
	c.tap.mu.Unlock()
	c.mu.Lock()
	arrived, released := c.arrived, c.released
	c.arrived, c.released = nil, nil
	c.mu.Unlock()
	if arrived != nil {
		close(arrived)
		<-released
	}
	return n, err
}
