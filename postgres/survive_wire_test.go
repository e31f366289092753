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

// A wire is a network between a store and its server that loses requests. The client finds its connection broken. The server does not: it
// is still working on the request, or will get it later. Cancel requests are always lost.
type wire struct {
	mu       sync.Mutex
	catching string
	keeping  bool
	breaking int // requests
	late     *end
	ends     []*end
}

// An end is the client's end of a connection.
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
	t.Cleanup(w.cut)
	return openPool(t, newPool(t, url, func(config *pgxpool.Config) { config.ConnConfig.DialFunc = w.dial })), w
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

// keep loses the next request with these bytes in it, and keeps it for deliver.
func (w *wire) keep(containing string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catching, w.keeping = containing, true
}

// lose passes on the next request with these bytes in it, and loses the answer.
func (w *wire) lose(containing string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catching, w.keeping = containing, false
}

// loseMore loses the n requests after the next lost one, too. Every other one of them reaches the server.
func (w *wire) loseMore(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breaking = n
}

// more returns how many requests loseMore has yet to lose.
func (w *wire) more() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.breaking
}

// caught reports whether a request is lost, and whether it is kept from the server.
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
	case w.catching != "" && !isStartup(b) && bytes.Contains(b, []byte(w.catching)):
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
	return len(b), e.SetReadDeadline(time.Unix(1, 0)) // ends a read in progress
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

// Close implements net.Conn. It does not close the server's end of a broken connection.
func (e *end) Close() error {
	if e.isBroken() {
		return nil
	}
	return e.Conn.Close()
}

// cut closes all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.ends {
		e.Conn.Close()
	}
}

// deliver sends the kept request to the server and returns the answer.
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
