package eshttp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/eshttp"
)

// counter counts up to 9.
type counter struct{}

type added struct{ N int }

func (counter) Decide(state, command int) ([]added, error) {
	if state+command > 9 {
		return nil, es.Invariant("TOO_MANY", "%d and %d are above 9", state, command)
	}
	return []added{{command}}, nil
}

func (counter) Evolve(state int, e added) int { return state + e.N }

type counters = es.Repo[int, int, added]

func newCounters(store es.Store) *counters {
	return es.NewRepo(store, "counter", counter{}, es.JSON(map[string]added{"added": {}}))
}

// service adds one to a counter.
func service(repo *counters) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /counters/{id}/{action}", func(w http.ResponseWriter, r *http.Request) {
		options, err := eshttp.Options(r)
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		result, err := repo.Execute(r.Context(), r.PathValue("id"), 1, options...)
		if err != nil {
			eshttp.Error(w, r, err)
			return
		}
		eshttp.SetVersion(w, result.Version)
		eshttp.SetPosition(w, result.Position)
		_, _ = fmt.Fprint(w, result.State)
	})
	return mux
}

func post(h http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestARequestThatIsSentAgainTakesEffectOnce(t *testing.T) {
	h := service(newCounters(new(es.Mem)))
	for _, step := range []struct{ path, key, want string }{
		{"/counters/a/add", "k", "1"},
		{"/counters/a/add", "k", "1"},
		{"/counters/a/add", `"k"`, "1"}, // the form of the draft
		{"/counters/a/add", "other", "2"},
		{"/counters/a/again", "k", "3"}, // another request with the same key
		{"/counters/b/add", "k", "1"},
	} {
		w := post(h, step.path, http.Header{"Idempotency-Key": {step.key}})
		if w.Code != 200 || w.Body.String() != step.want {
			t.Errorf("POST %s with key %s: %d %s, want the state %s", step.path, step.key, w.Code, w.Body, step.want)
		}
	}
}

func TestIfMatch(t *testing.T) {
	h := service(newCounters(new(es.Mem)))
	for _, step := range []struct {
		header, value string
		want          int
	}{
		{"If-None-Match", "*", 200},
		{"If-None-Match", "*", 409},
		{"If-Match", `"0"`, 409},
		{"If-Match", `"1"`, 200},
		{"If-Match", `"1"`, 409},
		{"If-Match", `W/"2"`, 200},
	} {
		w := post(h, "/counters/a/add", http.Header{step.header: {step.value}})
		if w.Code != step.want || w.Code == 200 && w.Header().Get("ETag") == "" || w.Code == 409 && w.Header().Get("ETag") != "" {
			t.Errorf("%s: %s: status %d, ETag %s, want %d", step.header, step.value, w.Code, w.Header().Get("ETag"), step.want)
		}
	}
}

func TestOptionsRefusesWhatItDoesNotUnderstand(t *testing.T) {
	log := new(es.Mem)
	h := service(newCounters(log))
	for _, header := range []http.Header{
		{"Idempotency-Key": {""}},
		{"Idempotency-Key": {`""`}},
		{"Idempotency-Key": {"a", "b"}},
		{"Idempotency-Key": {"with space"}},
		{"Idempotency-Key": {"ä"}},
		{"Idempotency-Key": {strings.Repeat("k", 256)}},
		{"If-Match": {""}},
		{"If-Match": {"7"}},
		{"If-Match": {"*"}},
		{"If-Match": {`"-1"`}},
		{"If-Match": {`"+1"`}},
		{"If-Match": {`"01"`}},
		{"If-Match": {`"9223372036854775808"`}},
		{"If-Match": {`"1", "2"`}},
		{"If-Match": {`"1"`, `"2"`}},
		{"If-Match": {"\"1"}},
		{"If-None-Match": {`"1"`}},
		{"If-None-Match": {"*"}, "If-Match": {`"1"`}},
	} {
		w := post(h, "/counters/a/add", header)
		var p struct{ Detail string }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 400 || !strings.Contains(p.Detail, "-") {
			t.Errorf("%v: status %d, body %s (%v), want 400 and the name of the header", header, w.Code, w.Body, err)
		}
	}
	if head, err := es.Head(t.Context(), log); head != 0 || err != nil {
		t.Errorf("the log has %d records (%v), want none", head, err)
	}
}

func TestError(t *testing.T) {
	secret := errors.New("dial 10.0.0.7: password of ann is secret")
	_, large := io.ReadAll(http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("too large")), 1))
	stream := es.Stream{Kind: "counter", ID: "a"}
	for _, test := range []struct {
		name string
		err  error
		want int
		body []string
	}{
		{"conflict", &es.ConflictError{Stream: stream, Expected: 7}, 409, []string{"counter/a is not at version 7"}},
		{"duplicate", &es.DuplicateError{Stream: stream, Command: "x"}, 409, nil},
		{"rewound", fmt.Errorf("%w: %w", es.ErrRewound, &es.ConflictError{Stream: stream}), 409, nil},
		{"position ahead", &es.AheadError{After: 9, Head: 1}, 409, []string{"past the end"}},
		{"invariant", es.Invariant("TOO_MANY", "above 9"), 422, []string{`"code":"TOO_MANY"`, `"detail":"above 9"`}},
		{"invariant of an inline projection", fmt.Errorf("inline: %w", es.Invariant("TAKEN", "taken")), 422, []string{`"code":"TAKEN"`}},
		{"invalid", fmt.Errorf("es: %w: id is empty", es.ErrInvalid), 400, []string{"id is empty"}},
		{"expired", es.ErrExpired, 410, nil},
		{"large", large, 413, nil},
		{"unavailable", fmt.Errorf("%w: %w", es.ErrUnavailable, secret), 503, nil},
		{"closed", es.ErrClosed, 503, nil},
		{"deadline", context.DeadlineExceeded, 503, nil},
		{"unknown outcome", fmt.Errorf("%w: %w", es.ErrUnknownOutcome, context.DeadlineExceeded), 504, []string{`"idempotencyKey":"k1"`}},
		{"invalid and unavailable", fmt.Errorf("%w: %w: %w", es.ErrUnavailable, es.ErrInvalid, secret), 503, nil},
		{"other", secret, 500, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r, logged := logging(t, http.MethodPost, "/x")
			r.Header.Set("Idempotency-Key", "k1")
			eshttp.SetVersion(w, 7)
			eshttp.Error(w, r, test.err)
			body := w.Body.String()
			if w.Code != test.want || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("ETag") != "" {
				t.Errorf("status %d, header %v, want %d", w.Code, w.Header(), test.want)
			}
			var p struct {
				Title  string
				Status int
			}
			if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != test.want || p.Title != http.StatusText(test.want) {
				t.Errorf("body %s (%v)", body, err)
			}
			for _, want := range test.body {
				if !strings.Contains(body, want) {
					t.Errorf("body %s has no %s", body, want)
				}
			}
			if strings.Contains(body, "secret") {
				t.Errorf("body %s tells about the inside", body)
			}
			if (test.want == 503) != (w.Header().Get("Retry-After") != "") {
				t.Errorf("Retry-After is %q with status %d", w.Header().Get("Retry-After"), w.Code)
			}
			if logs := strings.Contains(logged.String(), test.err.Error()); logs != (test.want >= 500) {
				t.Errorf("the log has %q, want the error if and only if the client does not get it", logged)
			}
		})
	}
	t.Run("unknown outcome without a key", func(t *testing.T) {
		w := httptest.NewRecorder()
		r, _ := logging(t, http.MethodPost, "/x")
		eshttp.Error(w, r, es.ErrUnknownOutcome)
		if body := w.Body.String(); w.Code != 504 || strings.Contains(body, "idempotencyKey") || !strings.Contains(body, "Read the state") {
			t.Errorf("%d %s", w.Code, body)
		}
	})
}

// logging returns a request with the log of its server.
func logging(t *testing.T, method, target string) (*http.Request, *bytes.Buffer) {
	var b bytes.Buffer
	server := &http.Server{ErrorLog: log.New(&b, "", 0), ReadHeaderTimeout: time.Minute}
	ctx := context.WithValue(t.Context(), http.ServerContextKey, server)
	return httptest.NewRequestWithContext(ctx, method, target, nil), &b
}

// waiter is a projection that has applied the records up to a position.
type waiter struct {
	at    es.Position
	calls int
}

func (p *waiter) WaitFor(ctx context.Context, name string, position es.Position) error {
	p.calls++
	if name != "list" {
		return fmt.Errorf("%w: no projection %s", es.ErrInvalid, name)
	}
	if position > p.at {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func TestWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		request := func(position ...string) *http.Request {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/list", nil)
			if position != nil {
				r.Header["Es-Position"] = position
			}
			return r
		}
		p := &waiter{at: 7}
		if err := eshttp.WaitFor(request(), p, "list"); err != nil || p.calls != 0 {
			t.Errorf("without the header: %v, %d calls, want none", err, p.calls)
		}
		if err := eshttp.WaitFor(request("7"), p, "list"); err != nil || p.calls != 1 {
			t.Errorf("at the position: %v, %d calls", err, p.calls)
		}
		if err := eshttp.WaitFor(request("8"), p, "list"); !errors.Is(err, es.ErrUnavailable) {
			t.Errorf("behind the position: %v, want an error after the limit", err)
		}
		if err := eshttp.WaitFor(request("1"), p, "lost"); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("another projection: %v", err)
		}
		for _, wrong := range [][]string{{""}, {"x"}, {"-1"}, {"1", "2"}, {"99999999999999999999"}} {
			if err := eshttp.WaitFor(request(wrong...), p, "list"); !errors.Is(err, es.ErrInvalid) {
				t.Errorf("position %q: %v, want an error that wraps ErrInvalid", wrong, err)
			}
		}
	})
}

// away is a log whose database does not answer.
type away struct{ es.Log }

func (away) Changed(ctx context.Context, _ es.Position) (es.Position, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// failing is a log whose database answers with an error.
type failing struct{ es.Log }

func (failing) Changed(context.Context, es.Position) (es.Position, error) {
	return 0, fmt.Errorf("%w: refused", es.ErrUnavailable)
}

func TestHealth(t *testing.T) {
	for _, test := range []struct {
		log          es.Log
		method, path string
		want         int
	}{
		{new(es.Mem), "GET", "/health/ready", 200},
		{new(es.Mem), "HEAD", "/ready", 200},
		{new(es.Mem), "GET", "/live", 200},
		{failing{}, "GET", "/health/live", 200},
		{failing{}, "GET", "/health/ready", 503},
		{away{}, "GET", "/live", 200},
		{away{}, "GET", "/ready", 503},
		{new(es.Mem), "GET", "/health/", 404},
		{new(es.Mem), "POST", "/live", 405},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := httptest.NewRecorder()
			r, _ := logging(t, test.method, test.path)
			eshttp.Health(test.log).ServeHTTP(w, r)
			if w.Code != test.want {
				t.Errorf("%T: %s %s: %d %s, want %d", test.log, test.method, test.path, w.Code, w.Body, test.want)
			}
		})
	}
}

// add appends records to a log, each with a text.
func add(t *testing.T, log es.Log, kind string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		_, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: kind, ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "said", Data: []byte(text)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func renderText(r es.Record) ([]byte, error) {
	switch text := string(r.Data); text {
	case "hidden":
		return nil, nil
	case "broken":
		return nil, errors.New("cannot render it")
	default:
		return r.Data, nil
	}
}

// follow requests events until ctx of the request is done, and returns what came.
func follow(t *testing.T, h http.Handler, target, last string, during func()) *httptest.ResponseRecorder {
	ctx, cancel := context.WithCancel(t.Context())
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	done := make(chan struct{})
	go func() { defer close(done); h.ServeHTTP(w, r) }()
	synctest.Wait()
	if during != nil {
		during()
		synctest.Wait()
	}
	cancel()
	<-done
	return w
}

func TestEvents(t *testing.T) {
	for _, test := range []struct {
		name, target, last string
		filter             es.Filter
		during             func(t *testing.T, log es.Log)
		want               string
	}{
		{"from the beginning", "/", "", es.Filter{}, nil, "id: 1\ndata: one\n\nid: 3\ndata: three\n\nid: 4\ndata: a\ndata: b\ndata: c\ndata: \n\n"},
		{"after the last event", "/", "1", es.Filter{}, nil, "id: 3\ndata: three\n\nid: 4\ndata: a\ndata: b\ndata: c\ndata: \n\n"},
		{"after a position", "/?after=3", "", es.Filter{}, nil, "id: 4\ndata: a\ndata: b\ndata: c\ndata: \n\n"},
		{"the last event is before the query", "/?after=1", "4", es.Filter{}, nil, ""},
		{"what a filter lets through", "/", "", es.Filter{Kinds: []string{"other"}}, func(t *testing.T, log es.Log) {
			add(t, log, "chat", "five")
			add(t, log, "other", "six")
		}, "id: 6\ndata: six\n\n"},
		{"new ones", "/", "4", es.Filter{}, func(t *testing.T, log es.Log) { add(t, log, "chat", "five", "six") }, "id: 5\ndata: five\n\nid: 6\ndata: six\n\n"},
		{"a sign of life with the position", "/", "4", es.Filter{Kinds: []string{"other"}}, func(t *testing.T, log es.Log) {
			add(t, log, "chat", "five")
			time.Sleep(16 * time.Second)
		}, "id: 5\n\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := new(es.Mem)
				add(t, log, "chat", "one", "hidden", "three", "a\r\nb\rc\n")
				w := follow(t, eshttp.Events(log, test.filter, renderText), test.target, test.last, func() {
					if test.during != nil {
						test.during(t, log)
					}
				})
				if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" || w.Body.String() != test.want {
					t.Errorf("%d %v\n%q, want\n%q", w.Code, w.Header(), w.Body, test.want)
				}
			})
		})
	}
}

func TestEventsRefusesAPositionThatIsNone(t *testing.T) {
	log := new(es.Mem)
	add(t, log, "chat", "one")
	for _, test := range []struct {
		target, last string
		want         int
	}{{"/", "2", 409}, {"/?after=2", "", 409}, {"/", "x", 400}, {"/?after=-1", "", 400}} {
		synctest.Test(t, func(t *testing.T) {
			if w := follow(t, eshttp.Events(log, es.Filter{}, renderText), test.target, test.last, nil); w.Code != test.want {
				t.Errorf("%s with %q: %d %s, want %d", test.target, test.last, w.Code, w.Body, test.want)
			}
		})
	}
}

// A record that cannot be rendered ends the stream before it, and the log says why.
func TestEventsEndsWhereARecordCannotBeRendered(t *testing.T) {
	events := new(es.Mem)
	add(t, events, "chat", "one", "broken", "three")
	w := httptest.NewRecorder()
	r, logged := logging(t, http.MethodGet, "/")
	eshttp.Events(events, es.Filter{}, renderText).ServeHTTP(w, r)
	if w.Body.String() != "id: 1\ndata: one\n\n" || !strings.Contains(logged.String(), "render chat/1/2: cannot render it") {
		t.Errorf("the client got %q, and the log %q", w.Body, logged)
	}
}

// plain is a wrapper that hides Flush.
type plain struct{ http.ResponseWriter }

func TestEventsNeedsFlush(t *testing.T) {
	w := httptest.NewRecorder()
	r, logged := logging(t, http.MethodGet, "/")
	eshttp.Events(new(es.Mem), es.Filter{}, renderText).ServeHTTP(plain{w}, r)
	if w.Code != 500 || !strings.Contains(logged.String(), "no Unwrap") {
		t.Errorf("%d %s, log %q", w.Code, w.Body, logged)
	}
}

// start serves a handler by Serve until stop, which returns its error.
func start(t *testing.T, h http.Handler) (address string, stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	listening := make(chan string, 1)
	ended := make(chan error, 1)
	s := &http.Server{Addr: "127.0.0.1:0", Handler: h, ReadHeaderTimeout: time.Minute, BaseContext: func(l net.Listener) context.Context {
		listening <- l.Addr().String()
		return ctx
	}}
	go func() { ended <- es.Run(ctx, eshttp.Serve(s)) }()
	stop = func() error {
		cancel()
		return <-ended
	}
	return <-listening, stop
}

func TestServe(t *testing.T) {
	t.Run("ends streams and finishes requests", func(t *testing.T) {
		log := new(es.Mem)
		add(t, log, "chat", "one")
		inside, finish := make(chan struct{}), make(chan struct{})
		mux := http.NewServeMux()
		mux.Handle("GET /events", eshttp.Events(log, es.Filter{}, renderText))
		mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
			close(inside)
			<-finish
			_, _ = fmt.Fprint(w, "done")
		})
		address, stop := start(t, mux)
		events := get(t, address, "/events") //nolint:bodyclose // get closes it
		lines := bufio.NewScanner(events.Body)
		if !lines.Scan() || lines.Text() != "id: 1" {
			t.Fatalf("the stream began with %q (%v)", lines.Text(), lines.Err())
		}
		slow := make(chan string, 1)
		go func() {
			response := get(t, address, "/slow") //nolint:bodyclose // get closes it
			body, err := io.ReadAll(response.Body)
			slow <- fmt.Sprint(string(body), err)
		}()
		<-inside
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		var rest []string
		for lines.Scan() {
			rest = append(rest, lines.Text())
		}
		if !slices.Equal(rest, []string{"data: one", ""}) {
			t.Errorf("the rest of the stream is %q", rest)
		}
		close(finish)
		if got := <-slow; got != "done<nil>" {
			t.Errorf("the request in progress got %s", got)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	t.Run("where another server listens", func(t *testing.T) {
		address, stop := start(t, http.NotFoundHandler())
		err := eshttp.Serve(&http.Server{Addr: address, ReadHeaderTimeout: time.Minute})(t.Context())
		if err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("a second server on %s returned %v", address, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func get(t *testing.T, address, path string) *http.Response {
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Error(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return &http.Response{Body: http.NoBody}
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}
