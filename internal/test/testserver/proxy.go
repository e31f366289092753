package testserver

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A Proxy stands between clients and a server, and breaks their connections when and as it is told to. It understands nothing
// of what it forwards, so it serves any protocol over TCP. Its methods may be called from any goroutine.
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
	sent       chan struct{} // closed when the server has it
	sprung     chan struct{} // closed when all is over
}

// A link is a client's connection and the server's that belongs to it.
type link struct {
	client net.Conn
	server net.Conn        // set before anything is forwarded
	ctx    context.Context // ends when the link is cut, and takes the server's connection with it
	cancel context.CancelFunc

	// Both guarded by Proxy.mu.
	seen   []byte // the last of the client's bytes, in case a request that a trap waits for comes in two pieces
	caught *trap  // the next answer is lost
}

// StartProxy starts a proxy on a port of its own, for as long as the test runs. The target is a host and port, or a URL.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatalf("testserver: %v", err)
	}
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

// Addr is the host and port of the proxy.
func (p *Proxy) Addr() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// Through returns the URL of a server with the proxy in its place.
func (p *Proxy) Through(rawURL string) string { return redirect(rawURL, p.port) }

// Target sends connections made from now on to another server, as a failover does.
func (p *Proxy) Target(target string) {
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		target = u.Host
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut resets every connection there is, and returns how many there were. New ones are let through.
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

// Refuse turns new connections away, as a host does on which nothing listens. Those there are stay.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}

// Stall lets nothing through in either direction and keeps the connections, as a network does that loses everything. New ones
// are accepted and stall too.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Delay makes every answer this much later.
func (p *Proxy) Delay(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = by
}

// LoseAnswer waits for the next request with these bytes in it, any if there are none, lets the server have it, and resets
// the client's connection when the server answers. The server does the request to its end: what it was to commit is
// committed, and the client cannot know. All else is forwarded as before. It waits for one request only, the
// last that was named to it or to LoseRequest. The channel is closed when it has happened.
//
// The bytes must be on the wire: with pgx a text parameter is, the statement only the first time that a connection runs it.
func (p *Proxy) LoseAnswer(containing string) <-chan struct{} { return p.set(containing, true) }

// LoseRequest is LoseAnswer's twin: the server never gets the request. To the client the two look the same.
func (p *Proxy) LoseRequest(containing string) <-chan struct{} { return p.set(containing, false) }

func (p *Proxy) set(containing string, forward bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = &trap{containing: []byte(containing), forward: forward, sent: make(chan struct{}), sprung: make(chan struct{})}
	return p.trap.sprung
}

// Heal ends Refuse, Stall, Delay, and what LoseAnswer and LoseRequest still wait for. Bytes that were stalled arrive.
func (p *Proxy) Heal(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	p.delay, p.trap = 0, nil
	p.flow()
	refusing := p.listener == nil
	p.mu.Unlock()
	if refusing {
		if err := p.listen(); err != nil {
			t.Fatalf("testserver: let connections in again: %v", err)
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

// serve forwards one connection until either end closes it or it is cut.
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

// pass waits while the proxy is stalled; it says no if the link was cut meanwhile.
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
				// The server is to do what it was sent before it learns that the client is gone.
				closeWrite(l.server)
			}
			return
		}
	}
}

// catch returns the trap if these bytes spring it.
func (p *Proxy) catch(l *link, sent []byte) *trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trap == nil {
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
			p.pass(l) // the end of a connection is held up too
			return
		}
	}
}

// lose drops an answer and its client. The server is told that no more will come, which it reads when it has done the request,
// and not that its client has broken off; and the client hears nothing before the server has gone.
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

// wait waits for the delay; it says no if the link was cut meanwhile.
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

// reset ends a link at once. The client is sent a reset and not a regular end, as one whose server has crashed.
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

// redirect puts another port of this machine into a URL.
func redirect(rawURL string, port int) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // whoever connects to it hears why
	}
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return u.String()
}
