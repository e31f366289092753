package kafkatest

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// LoseRequest resets the connection of the next request of a kind; the broker does not execute the request.
// The returned channel is closed when that has happened.
func (b *Broker) LoseRequest(request kmsg.Key) <-chan struct{} {
	return b.faults.set(request, loseRequest)
}

// LoseAnswer lets the broker execute the next request of a kind, and resets the connection instead of sending the
// response. The client cannot tell this from LoseRequest. The returned channel is closed when that has happened.
func (b *Broker) LoseAnswer(request kmsg.Key) <-chan struct{} {
	return b.faults.set(request, loseAnswer)
}

// HoldRequest blocks the next request of a kind, and all that follows on its connection, until release is called.
// The returned channel is closed when the request has arrived.
func (b *Broker) HoldRequest(request kmsg.Key) (arrived <-chan struct{}, release func()) {
	released := make(chan struct{})
	t := &trap{request: request, fault: holdRequest, hit: make(chan struct{}), released: released}
	return b.faults.add(t), sync.OnceFunc(func() { close(released) })
}

// Delay delays every response to requests of a kind. A duration of 0 ends the delay.
func (b *Broker) Delay(request kmsg.Key, by time.Duration) {
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	if b.faults.delays == nil {
		b.faults.delays = make(map[kmsg.Key]time.Duration)
	}
	b.faults.delays[request] = by
}

// Disconnect resets all connections. New connections are accepted.
func (b *Broker) Disconnect() { b.faults.disconnect() }

// Cut resets all connections and rejects new ones until Heal, like a network that is down.
func (b *Broker) Cut() {
	b.faults.mu.Lock()
	b.faults.cut = true
	b.faults.mu.Unlock()
	b.faults.disconnect()
}

// Heal ends Cut and Delay, and cancels LoseRequest, LoseAnswer and HoldRequest calls that no request has met yet.
func (b *Broker) Heal() {
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	b.faults.cut, b.faults.delays, b.faults.traps = false, nil, nil
}

// faults injects faults between the clients and the broker. It parses only the headers of requests and responses.
type faults struct {
	mu      sync.Mutex
	cut     bool
	stopped bool
	delays  map[kmsg.Key]time.Duration
	traps   []*trap
	conns   map[*conn]struct{}
	empty   chan struct{} // if set, closed when there are no connections
}

// trap applies a fault to one request.
type trap struct {
	request  kmsg.Key
	fault    fault
	hit      chan struct{} // closed when a request has met the trap
	released chan struct{} // closed to release a held request
}

type fault int

const (
	loseRequest fault = iota
	loseAnswer
	holdRequest
)

var errLost = errors.New("kafkatest: the connection was reset")

func (f *faults) set(request kmsg.Key, with fault) <-chan struct{} {
	return f.add(&trap{request: request, fault: with, hit: make(chan struct{})})
}

func (f *faults) add(t *trap) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traps = append(f.traps, t)
	return t.hit
}

// take removes and returns the first trap for a kind of request, or nil.
func (f *faults) take(request kmsg.Key) *trap {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, t := range f.traps {
		if t.request == request {
			f.traps = append(f.traps[:i:i], f.traps[i+1:]...)
			return t
		}
	}
	return nil
}

func (f *faults) delay(request kmsg.Key) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.delays[request]
}

func (f *faults) disconnect() {
	f.mu.Lock()
	conns := slices.Collect(maps.Keys(f.conns))
	f.mu.Unlock()
	for _, c := range conns {
		c.reset()
	}
}

// stop resets all connections, and returns when the broker has closed them.
func (f *faults) stop() {
	f.mu.Lock()
	f.stopped = true
	empty := make(chan struct{})
	if len(f.conns) == 0 {
		close(empty)
	} else {
		f.empty = empty
	}
	f.mu.Unlock()
	f.disconnect()
	<-empty
}

// start accepts connections again after stop.
func (f *faults) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped, f.empty = false, nil
}

func (f *faults) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address) //nolint:noctx // kfake's signature has no context
	return &listener{l, f}, err
}

type listener struct {
	net.Listener
	faults *faults
}

// Accept returns the next connection that is not rejected.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, faults: l.faults, pending: make(map[uint32]request), closed: make(chan struct{})}
		l.faults.mu.Lock()
		if l.faults.cut || l.faults.stopped {
			l.faults.mu.Unlock()
			c.reset()
			continue
		}
		if l.faults.conns == nil {
			l.faults.conns = make(map[*conn]struct{})
		}
		l.faults.conns[c] = struct{}{}
		l.faults.mu.Unlock()
		return c, nil
	}
}

// conn is the broker's end of a connection.
type conn struct {
	net.Conn
	faults *faults
	once   sync.Once
	closed chan struct{}

	// The request being read: the bytes of its header read so far (size, kind, version and correlation id), and the
	// number of bytes after the header that have not been read.
	head []byte
	rest int

	mu      sync.Mutex
	pending map[uint32]request // requests without a response, by correlation id
}

type request struct {
	kind kmsg.Key
	trap *trap
}

// Read reads requests.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.parse(p[:n]) {
		c.reset()
		return 0, errLost
	}
	return n, err
}

// parse tracks the requests in the bytes read, and returns false if a request is to be lost.
func (c *conn) parse(p []byte) bool {
	const head = 12
	for len(p) > 0 {
		if skip := min(c.rest, len(p)); skip > 0 {
			c.rest -= skip
			p = p[skip:]
			continue
		}
		take := min(head-len(c.head), len(p))
		c.head = append(c.head, p[:take]...)
		p = p[take:]
		if len(c.head) < head {
			continue
		}
		size := binary.BigEndian.Uint32(c.head)
		kind := kmsg.Key(binary.BigEndian.Uint16(c.head[4:]))
		correlation := binary.BigEndian.Uint32(c.head[8:])
		c.head, c.rest = c.head[:0], max(0, int(size)-8)
		if !c.arrived(kind, correlation) {
			return false
		}
	}
	return true
}

// arrived applies a trap to a request, and returns false if the request is to be lost.
func (c *conn) arrived(kind kmsg.Key, correlation uint32) bool {
	t := c.faults.take(kind)
	if t != nil && t.fault == loseRequest {
		close(t.hit)
		return false
	}
	if t != nil && t.fault == holdRequest {
		close(t.hit)
		select {
		case <-t.released:
		case <-c.closed:
		}
		t = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[correlation] = request{kind, t}
	return true
}

// Write writes a response. kfake writes each response with one call.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) < 8 {
		return c.Conn.Write(p)
	}
	correlation := binary.BigEndian.Uint32(p[4:])
	c.mu.Lock()
	r := c.pending[correlation]
	delete(c.pending, correlation)
	c.mu.Unlock()
	if r.trap != nil {
		c.reset()
		close(r.trap.hit)
		return 0, errLost
	}
	if d := c.faults.delay(r.kind); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.closed:
		}
	}
	return c.Conn.Write(p)
}

// Close closes the connection, once.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.faults.remove(c)
	})
	return err
}

func (f *faults) remove(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	if len(f.conns) == 0 && f.empty != nil {
		close(f.empty)
		f.empty = nil
	}
}

// reset closes a connection as a crash does, with a TCP reset.
func (c *conn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
