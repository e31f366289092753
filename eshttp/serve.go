package eshttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// drain is how long requests get to finish.
const drain = 10 * time.Second

type endingKey struct{}

// Serve returns a task for [es.Run]. It listens on the address of the server and serves until its context is done. Then it takes no
// new connections, ends the streams of [Events], and waits for the other requests, for at most 10 seconds. It serves TLS if
// s.TLSConfig has certificates.
//
// The task returns an error if it cannot listen, or if requests had to be cut off.
func Serve(s *http.Server) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		address := s.Addr
		if address == "" {
			address = ":http"
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("eshttp: %w", err)
		}
		return serve(ctx, s, listener)
	}
}

func serve(ctx context.Context, s *http.Server, listener net.Listener) error {
	base := s.BaseContext
	s.BaseContext = func(l net.Listener) context.Context {
		inner := context.Background()
		if base != nil {
			inner = base(l)
		}
		return context.WithValue(inner, endingKey{}, ctx)
	}
	ended := make(chan error, 1)
	go func() {
		if s.TLSConfig != nil {
			ended <- s.ServeTLS(listener, "", "")
		} else {
			ended <- s.Serve(listener)
		}
	}()
	select {
	case err := <-ended: // such as a listener that broke
		_ = s.Close()
		return fmt.Errorf("eshttp: serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := s.Shutdown(limit)
	if err != nil {
		_ = s.Close()
		err = fmt.Errorf("eshttp: requests on %s were cut off after %v: %w", listener.Addr(), drain, err)
	}
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// whenEnding calls f when the server of a request ends, if Serve runs it, unless stop was called before.
func whenEnding(ctx context.Context, f func()) (stop func() bool) {
	server, ok := ctx.Value(endingKey{}).(context.Context)
	if !ok {
		server = context.Background()
	}
	return context.AfterFunc(server, f)
}
