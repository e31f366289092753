package postgres_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es/postgres"
)

// A wire is the network between a store and its server. It loses what it is told to: the client finds its connection broken, and the
// server finds nothing, for it may get the request later, or is at work on it. Cancel requests are lost always, as they would be.
type wire struct {
	mu       sync.Mutex
	catching string
	keeping  bool
	breaking int // requests
	late     *end
	ends     []*end
}

// An end is a connection on the wire, as the client has it.
type end struct {
	net.Conn
	wire   *wire
	mu     sync.Mutex
	broken bool
	kept   []byte // the request that is late
}

// openOn opens a store on a wire of its own.
func openOn(t testing.TB, url string) (*postgres.Store, *wire) {
	t.Helper()
	w := new(wire)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.DialFunc = w.dial
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.cut)
	t.Cleanup(pool.Close)
	s, err := postgres.New(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, w
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	e := &end{Conn: c, wire: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, e)
	return e, nil
}

// keep keeps the next request with these bytes in it, for deliver.
func (w *wire) keep(containing string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catching, w.keeping = containing, true
}

// lose lets the server have the next request with these bytes in it, and the client no answer.
func (w *wire) lose(containing string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catching, w.keeping = containing, false
}

// loseMore loses, as soon as a request is lost, the next n as well, whatever they are: every other one reaches the server.
func (w *wire) loseMore(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breaking = n
}

// more is how many requests loseMore has yet to lose.
func (w *wire) more() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.breaking
}

// caught tells what becomes of a request.
func (w *wire) caught(e *end, b []byte) (lost, kept bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const cancel = "\x00\x00\x00\x10\x04\xd2\x16\x2e"
	switch {
	case bytes.HasPrefix(b, []byte(cancel)):
		return true, true
	case w.catching == "" && w.breaking > 0:
		w.breaking--
		return true, w.breaking%2 == 0
	case w.catching != "" && bytes.Contains(b, []byte(w.catching)):
		w.catching, w.late = "", e
		return true, w.keeping
	}
	return false, false
}

// Write implements net.Conn.
func (e *end) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken {
		return 0, syscall.EPIPE
	}
	lost, kept := e.wire.caught(e, b)
	if !lost {
		return e.Conn.Write(b)
	}
	e.broken = true
	if kept {
		e.kept = bytes.Clone(b)
	} else if _, err := e.Conn.Write(b); err != nil {
		return 0, err
	}
	return len(b), e.SetReadDeadline(time.Unix(1, 0)) // for a read that is waiting already
}

// Read implements net.Conn.
func (e *end) Read(b []byte) (int, error) {
	if e.isBroken() {
		return 0, syscall.ECONNRESET
	}
	n, err := e.Conn.Read(b)
	if e.isBroken() {
		return 0, syscall.ECONNRESET
	}
	return n, err
}

func (e *end) isBroken() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.broken
}

// Close implements net.Conn. The server does not hear of it if the connection is broken.
func (e *end) Close() error {
	if e.isBroken() {
		return nil
	}
	return e.Conn.Close()
}

// cut ends the wire.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.ends {
		e.Conn.Close()
	}
}

// deliver brings the request to the server and returns the answer.
func (w *wire) deliver(t testing.TB) string {
	t.Helper()
	w.mu.Lock()
	e := w.late
	w.mu.Unlock()
	if e == nil {
		t.Fatal("no request was kept")
	}
	defer e.Conn.Close()
	if err := e.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Conn.Write(e.kept); err != nil {
		t.Fatal(err)
	}
	var answer []byte
	for buffer := make([]byte, 4096); !bytes.Contains(answer, []byte("Z\x00\x00\x00\x05")); { // ReadyForQuery
		n, err := e.Conn.Read(buffer)
		answer = append(answer, buffer[:n]...)
		if err != nil {
			t.Fatalf("after %q: %v", answer, err)
		}
	}
	return string(answer)
}
