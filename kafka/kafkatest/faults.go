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

// LoseRequest waits for the next request of a kind and resets its connection in place of doing it.
// The channel is closed when that has happened.
func (b *Broker) LoseRequest(request kmsg.Key) <-chan struct{} {
	return b.faults.set(request, loseRequest)
}

// LoseAnswer waits for the next request of a kind, lets the broker do it, and resets the connection in place of answering: to the client
// it looks as with LoseRequest. The channel is closed when that has happened.
func (b *Broker) LoseAnswer(request kmsg.Key) <-chan struct{} {
	return b.faults.set(request, loseAnswer)
}

// HoldRequest waits for the next request of a kind, and holds it up, with all that comes on its connection, until it is released.
// The channel is closed when it is there.
func (b *Broker) HoldRequest(request kmsg.Key) (there <-chan struct{}, release func()) {
	held := make(chan struct{})
	return b.faults.add(&trap{request, holdRequest, make(chan struct{}), held}), sync.OnceFunc(func() { close(held) })
}

// Delay holds back every answer to requests of a kind for so long. 0 ends that.
func (b *Broker) Delay(request kmsg.Key, by time.Duration) {
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	if b.faults.delays == nil {
		b.faults.delays = make(map[kmsg.Key]time.Duration)
	}
	b.faults.delays[request] = by
}

// Disconnect resets all connections. New ones are let in.
func (b *Broker) Disconnect() { b.faults.disconnect() }

// Cut resets all connections and lets no new ones in until Heal, as a network does that is down.
func (b *Broker) Cut() {
	b.faults.mu.Lock()
	b.faults.cut = true
	b.faults.mu.Unlock()
	b.faults.disconnect()
}

// Heal ends Cut and Delay, and what LoseRequest, LoseAnswer and HoldRequest still wait for.
func (b *Broker) Heal() {
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	b.faults.cut, b.faults.delays, b.faults.traps = false, nil, nil
}

// faults stand between the clients and the broker and know as much of the protocol as tells requests and answers apart.
type faults struct {
	mu      sync.Mutex
	cut     bool
	stopped bool
	delays  map[kmsg.Key]time.Duration
	traps   []*trap
	conns   map[*conn]struct{}
	empty   chan struct{} // if set, closed when there are no connections
}

// A trap waits for one request.
type trap struct {
	request kmsg.Key
	fate    fate
	sprung  chan struct{}
	held    chan struct{} // closed when it is released
}

type fate int

const (
	loseRequest fate = iota
	loseAnswer
	holdRequest
)

var errLost = errors.New("kafkatest: the connection was cut")

func (f *faults) set(request kmsg.Key, fate fate) <-chan struct{} {
	return f.add(&trap{request, fate, make(chan struct{}), nil})
}

func (f *faults) add(t *trap) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traps = append(f.traps, t)
	return t.sprung
}

// spring returns the trap that waits for a request, and takes it away.
func (f *faults) spring(request kmsg.Key) *trap {
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

// stop ends all connections, and returns when the broker has noticed.
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

// start lets connections in after a stop.
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

// Accept returns the next connection that is let in.
func (l *listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, faults: l.faults, asked: make(map[uint32]asked), closed: make(chan struct{})}
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

// A conn is the broker's end of a connection.
type conn struct {
	net.Conn
	faults *faults
	once   sync.Once
	closed chan struct{}

	// The request that is being read: its size, kind, version and correlation id, as far as they have come, and what is left of the rest.
	head []byte
	rest int

	mu    sync.Mutex
	asked map[uint32]asked // by correlation id
}

type asked struct {
	request kmsg.Key
	trap    *trap
}

// Read reads requests.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.follow(p[:n]) {
		c.reset()
		return 0, errLost
	}
	return n, err
}

// follow looks at what was read, and says no if the request is to be lost.
func (c *conn) follow(p []byte) bool {
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
		request := kmsg.Key(binary.BigEndian.Uint16(c.head[4:]))
		correlation := binary.BigEndian.Uint32(c.head[8:])
		c.head, c.rest = c.head[:0], max(0, int(size)-8)
		t := c.faults.spring(request)
		if t != nil && t.fate == loseRequest {
			close(t.sprung)
			return false
		}
		if t != nil && t.fate == holdRequest {
			close(t.sprung)
			select {
			case <-t.held:
			case <-c.closed:
			}
			t = nil
		}
		c.mu.Lock()
		c.asked[correlation] = asked{request, t}
		c.mu.Unlock()
	}
	return true
}

// Write writes an answer, which kfake does in one piece.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) < 8 {
		return c.Conn.Write(p)
	}
	correlation := binary.BigEndian.Uint32(p[4:])
	c.mu.Lock()
	a := c.asked[correlation]
	delete(c.asked, correlation)
	c.mu.Unlock()
	if a.trap != nil {
		c.reset()
		close(a.trap.sprung)
		return 0, errLost
	}
	if d := c.faults.delay(a.request); d > 0 {
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
		c.leave()
	})
	return err
}

func (c *conn) leave() {
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	delete(c.faults.conns, c)
	if len(c.faults.conns) == 0 && c.faults.empty != nil {
		close(c.faults.empty)
		c.faults.empty = nil
	}
}

// reset ends a connection as a crash does, without a regular end.
func (c *conn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
