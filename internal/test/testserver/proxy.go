package testserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A Proxy forwards connections to a server and breaks them on request. It interprets nothing of what it forwards, except
// that it recognizes the first message to Postgres, so it works with any protocol over TCP. Its methods may be called from any goroutine.
type Proxy struct {
	port int

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	target   string
	open     chan struct{} // closed while bytes are forwarded
	delay    time.Duration
	trap     *trap
	links    map[*link]struct{}
	closed   bool

	done sync.WaitGroup
}

// A trap waits for one request.
type trap struct {
	containing []byte
	forward    bool          // the request reaches the server
	sent       chan struct{} // closed when the request was sent to the server
	sprung     chan struct{} // closed when the connection was reset
}

// A link is a client's connection together with its connection to the server.
type link struct {
	client net.Conn
	server net.Conn        // set before anything is forwarded
	ctx    context.Context // done when the link is cut, which closes the connection to the server
	cancel context.CancelFunc

	// Both guarded by Proxy.mu.
	seen   []byte // the client's last bytes, because a request may arrive in two pieces
	caught *trap  // the next answer is lost
}

// StartProxy starts a proxy on a free port until the test ends. The target is a host and port, or a URL.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("testserver: %v", err)
	}
	t.Cleanup(func() { releasePort(port) })
	return startProxy(t, port, target)
}

func startProxy(t testing.TB, port int, target string) *Proxy {
	t.Helper()
	p := &Proxy{port: port, open: make(chan struct{}), links: map[*link]struct{}{}}
	close(p.open)
	p.Target(target)
	if err := p.listen(); err != nil {
		t.Fatalf("testserver: start a proxy: %v", err)
	}
	t.Cleanup(p.close)
	return p
}

// Addr returns the host and port of the proxy.
func (p *Proxy) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// Through returns the URL with the proxy in place of the server.
func (p *Proxy) Through(rawURL string) string { return redirect(rawURL, p.port) }

// Target directs new connections to another server, as a failover does.
func (p *Proxy) Target(target string) {
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		target = u.Host
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut resets all connections and returns their number. New ones are accepted.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
	return len(links)
}

// Refuse rejects new connections, like a host without a listener. Open connections continue.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}

// Stall forwards nothing in either direction and keeps the connections, like a network that loses every packet. New
// connections are accepted and stall too.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Delay delays every answer.
func (p *Proxy) Delay(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = by
}

// LoseAnswer waits for the next request that contains the given bytes, or any request if there are none. It forwards
// the request and resets the client's connection when the server answers. The server completes the request: what it was
// to commit is committed, and the client cannot know. Other requests are forwarded. Only one request is awaited: that
// of the last call of LoseAnswer or LoseRequest. The returned channel is closed when it has happened. A message that begins
// a connection to Postgres is never awaited: it contains the name of the database, which contains the name of the test.
//
// The bytes must be on the wire. With pgx, text parameters are; the statement is only the first time that a connection
// runs it.
func (p *Proxy) LoseAnswer(containing string) <-chan struct{} { return p.set(containing, true) }

// LoseRequest is like LoseAnswer, but the server never receives the request. The client cannot tell the difference.
func (p *Proxy) LoseRequest(containing string) <-chan struct{} { return p.set(containing, false) }

func (p *Proxy) set(containing string, forward bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = &trap{containing: []byte(containing), forward: forward, sent: make(chan struct{}), sprung: make(chan struct{})}
	return p.trap.sprung
}

// Heal ends Refuse, Stall, Delay, and any pending LoseAnswer or LoseRequest. Stalled bytes are forwarded.
func (p *Proxy) Heal(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	p.delay, p.trap = 0, nil
	p.flow()
	refusing := p.listener == nil
	p.mu.Unlock()
	if refusing {
		if err := p.listen(); err != nil {
			t.Fatalf("testserver: accept connections again: %v", err)
		}
	}
}

// flow ends a stall. The caller holds mu.
func (p *Proxy) flow() {
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.Refuse()
	p.Cut()
	p.done.Wait()
}

func (p *Proxy) listen() error {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", p.Addr())
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = l
	p.done.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.serve(client) })
		}
	})
	return nil
}

// serve forwards one connection until either side closes it or it is cut.
func (p *Proxy) serve(client net.Conn) {
	l := &link{client: client}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	defer l.cancel()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		client.Close()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
		client.Close()
	}()

	if !p.pass(l) {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	var dialer net.Dialer
	server, err := dialer.DialContext(l.ctx, "tcp", target)
	if err != nil {
		l.reset()
		return
	}
	l.server = server
	context.AfterFunc(l.ctx, func() { server.Close() })

	var up sync.WaitGroup
	up.Go(func() { p.requests(l) })
	p.answers(l)
	l.cancel()
	client.Close()
	up.Wait()
}

// pass waits while the proxy is stalled. It returns false if the link is cut.
func (p *Proxy) pass(l *link) bool {
	for {
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		select {
		case <-l.ctx.Done():
			return false
		case <-open:
		}
		p.mu.Lock()
		same := open == p.open
		p.mu.Unlock()
		if same {
			return true
		}
	}
}

// requests forwards what the client sends.
func (p *Proxy) requests(l *link) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(buffer)
		if n > 0 {
			if !p.pass(l) {
				return
			}
			t := p.catch(l, buffer[:n])
			if t != nil && !t.forward {
				l.reset()
				close(t.sprung)
				return
			}
			_, err := l.server.Write(buffer[:n])
			if t != nil {
				close(t.sent)
			}
			if err != nil {
				return
			}
		}
		if err != nil {
			if p.pass(l) {
				// The server must process what it received before it sees that the client has gone.
				closeWrite(l.server)
			}
			return
		}
	}
}

// catch returns the trap if these bytes complete the request that it waits for.
func (p *Proxy) catch(l *link, sent []byte) *trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trap == nil || isStartup(sent) {
		l.seen = nil
		return nil
	}
	l.seen = append(l.seen, sent...)
	if !bytes.Contains(l.seen, p.trap.containing) {
		l.seen = bytes.Clone(l.seen[max(0, len(l.seen)-len(p.trap.containing)):])
		return nil
	}
	caught := p.trap
	p.trap = nil
	if caught.forward {
		l.caught = caught
	}
	return caught
}

// isStartup reports whether bytes from a client begin a connection to Postgres: a length, and version 3 of the protocol.
func isStartup(sent []byte) bool {
	return len(sent) >= 8 && sent[0] == 0 && binary.BigEndian.Uint16(sent[4:]) == 3
}

// answers forwards what the server sends.
func (p *Proxy) answers(l *link) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := l.server.Read(buffer)
		if n > 0 {
			if !p.pass(l) {
				return
			}
			p.mu.Lock()
			caught, delay := l.caught, p.delay
			p.mu.Unlock()
			if caught != nil {
				l.lose(caught, buffer)
				return
			}
			if !l.wait(delay) {
				return
			}
			if _, err := l.client.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			p.pass(l) // the end of a connection is delayed too
			return
		}
	}
}

// lose drops an answer and resets the client. The server sees the end of the client's stream, which it reads after it
// has completed the request, and no reset. The client gets nothing before the server has closed its side.
func (l *link) lose(caught *trap, buffer []byte) {
	select {
	case <-caught.sent:
	case <-l.ctx.Done():
	}
	closeWrite(l.server)
	for {
		if _, err := l.server.Read(buffer); err != nil {
			break
		}
	}
	l.reset()
	close(caught.sprung)
}

// wait waits for the delay. It returns false if the link is cut.
func (l *link) wait(delay time.Duration) bool {
	if delay <= 0 {
		return true
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-l.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// reset ends a link at once. The client gets a reset instead of an orderly end, as if the server had crashed.
func (l *link) reset() {
	if tcp, ok := l.client.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	l.client.Close()
	l.cancel()
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// redirect replaces host and port of a URL by a port of 127.0.0.1.
func redirect(rawURL string, port int) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // connecting to it reports the error
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return u.String()
}
