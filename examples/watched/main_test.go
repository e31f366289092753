package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// lines is a writer that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// watch starts the service with its projection, which ends with the test.
func watch(t *testing.T) (s *service, store *sqlite.Store, printed *lines) {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "accounts.db"))
	if err != nil {
		t.Fatal(err)
	}
	printed = new(lines)
	if s, err = newService(store, printed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- es.Run(ctx, s.project) }()
	t.Cleanup(func() {
		cancel()
		for _, err := range []error{<-ended, s.close(), store.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return s, store, printed
}

func get(t *testing.T, s *service, method, target, body string, headers ...string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, r)
	text, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s %s: status %d, %s", method, target, w.Code, text)
	}
	return string(text)
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// The printed traces lead from the request to the read model.
func TestTracesArePrinted(t *testing.T) {
	s, store, printed := watch(t)
	get(t, s, http.MethodPost, "/accounts/ann", `{"Amount": 100}`, "traceparent", parent)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := store.WaitFor(ctx, "balances", 2); err != nil {
		t.Fatal(err)
	}
	if list := get(t, s, http.MethodGet, "/balances", ""); strings.TrimSpace(list) != `{"ann":100}` {
		t.Errorf("the balances are %s", list)
	}
	command := regexp.MustCompile(`(?m)^4bf92f3577b34da6a3ce929d0e0e4736 (\w{16}) in \w{16} execute account .* es.batch.size=1 `)
	m := command.FindStringSubmatch(printed.String())
	if m == nil {
		t.Fatalf("no command of the request's trace in\n%s", printed)
	}
	if !regexp.MustCompile(`(?m)^\w{32} \w{16} project balances .* link=4bf92f3577b34da6a3ce929d0e0e4736/` + m[1]).MatchString(printed.String()) {
		t.Errorf("no batch of the projection that is linked to the command %s in\n%s", m[1], printed)
	}
}
