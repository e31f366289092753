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

// A tap counts the writes on a store's connections, and can delay an answer.
type tap struct {
	mu         sync.Mutex
	out        int    // writes, each a round trip
	in         int    // bytes
	containing []byte // of the request whose answer is delayed
	arrived    chan struct{}
	released   chan struct{}
	instead    func() // is called instead of sending the request
}

// tapped opens a store with a tap on its connections.
func tapped(t testing.TB, url string) (*postgres.Store, *tap) {
	t.Helper()
	p := new(tap)
	pool := newPool(t, url, func(config *pgxpool.Config) {
		dial := config.ConnConfig.DialFunc
		config.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &tappedConn{Conn: conn, tap: p}, err
		}
	})
	return openPool(t, pool), p
}

// hold delays the answer to the next request that contains a text. arrived is closed when the answer has arrived; release passes it on.
func (p *tap) hold(containing string) (arrived <-chan struct{}, release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containing, p.arrived, p.released = []byte(containing), make(chan struct{}), make(chan struct{})
	released := p.released
	return p.arrived, func() { close(released) }
}

// end calls a function instead of sending the next request that contains a text. It should let the server end the session.
func (p *tap) end(containing string, instead func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containing, p.instead = []byte(containing), instead
}

// sent returns the number of writes so far.
func (p *tap) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// received returns the number of bytes read so far.
func (p *tap) received() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in
}

type tappedConn struct {
	net.Conn
	tap *tap

	mu                sync.Mutex
	arrived, released chan struct{} // not nil if its next answer is delayed
}

func (c *tappedConn) Write(b []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.out++
	if c.tap.containing != nil && !isStartup(b) && bytes.Contains(b, c.tap.containing) {
		if instead := c.tap.instead; instead != nil {
			c.tap.containing, c.tap.instead = nil, nil
			c.tap.mu.Unlock()
			instead()
			return len(b), nil
		}
		c.mu.Lock()
		c.arrived, c.released = c.tap.arrived, c.tap.released
		c.mu.Unlock()
		c.tap.containing = nil
	}
	c.tap.mu.Unlock()
	return c.Conn.Write(b)
}

// isStartup reports whether a message begins a connection. It has the name of the database, which has the name of the test. All other
// messages begin with a letter.
func isStartup(message []byte) bool { return len(message) > 0 && message[0] == 0 }

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
