package eshttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/thalo-go/es"
)

const (
	heartbeat  = 15 * time.Second // between signs of life to an idle client
	writeLimit = 30 * time.Second // until a client that takes nothing is cut off
)

// Events returns a handler that serves the records of a log as server-sent events: those that filter lets through, in order, and then
// new ones as they are written, until the client goes away. The id of an event is the record's position and its data is what render
// returns for the record; nil leaves the record out. A client sees all that render returns, so check its rights before this handler,
// and in render.
//
// A stream begins behind the position in the header Last-Event-ID, which a browser sends when it connects again, or else in the query
// parameter "after", or else at the beginning of the log. A position after the end of the log is answered with 409: the log was
// restored, so the client must begin anew. An idle stream gets an event without data every 15 seconds, which browsers do not deliver.
// If render or the log fails, the stream ends, the error goes to the ErrorLog of the server, and the client connects again.
func Events(log es.Log, filter es.Filter, render func(r es.Record) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", "GET")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		after, err := begin(r.Context(), log, r)
		if err != nil {
			Error(w, r, err)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer whenEnding(ctx, cancel)()
		s := &stream{w: w, control: http.NewResponseController(w), after: after}
		if err := s.open(); err != nil {
			Error(w, r, err)
			return
		}
		if err := s.serve(ctx, log, filter, render); err != nil && ctx.Err() == nil {
			report(r, "the stream ended after position %d: %v", s.after, err)
		}
	})
}

// begin returns the position behind which the stream of a request begins.
func begin(ctx context.Context, log es.Log, r *http.Request) (after es.Position, err error) {
	switch last, query := r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"); {
	case last != "":
		after, err = parsePosition("Last-Event-ID", last)
	case query != "":
		after, err = parsePosition("after", query)
	}
	if err != nil {
		return 0, err
	}
	head, err := es.Head(ctx, log)
	if err == nil && after > head {
		err = &es.AheadError{After: after, Head: head}
	}
	return after, err
}

// stream is the response to one client.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buffer  bytes.Buffer
	after   es.Position // the client has all before and at it
}

// open sends the headers.
func (s *stream) open() error {
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // of nginx
	if err := s.control.Flush(); err != nil {
		return fmt.Errorf("eshttp: serve events: a wrapper of the ResponseWriter has no Flush and no Unwrap: %w", err)
	}
	return nil
}

// serve sends records until ctx is done. It is es.Follow with signs of life.
func (s *stream) serve(ctx context.Context, log es.Log, filter es.Filter, render func(es.Record) ([]byte, error)) error {
	for {
		head, err := s.changed(ctx, log)
		if err != nil {
			return err
		}
		for r, err := range log.All(ctx, s.after, filter) {
			if err != nil {
				return err
			}
			data, err := render(r)
			if err != nil {
				return fmt.Errorf("render %s: %w", r.ID(), err)
			}
			s.after = r.Position
			if data == nil {
				continue
			}
			if err := s.send(data); err != nil {
				return err
			}
		}
		s.after = max(s.after, head)
		if err := s.control.Flush(); err != nil {
			return err
		}
	}
}

// changed waits for a record after s.after and returns the head of the log.
func (s *stream) changed(ctx context.Context, log es.Log) (es.Position, error) {
	for {
		idle, cancel := context.WithTimeout(ctx, heartbeat)
		head, err := log.Changed(idle, s.after)
		waited := idle.Err()
		cancel()
		if err == nil || waited == nil || ctx.Err() != nil {
			return head, err
		}
		// The id is more recent than that of the last event if records were left out.
		if err := s.send(nil); err != nil {
			return 0, err
		}
		if err := s.control.Flush(); err != nil {
			return 0, err
		}
	}
}

// send writes an event. One without data is not delivered by browsers, but they keep its id.
func (s *stream) send(data []byte) error {
	s.buffer.Reset()
	s.buffer.WriteString("id: ")
	s.buffer.WriteString(strconv.FormatInt(int64(s.after), 10))
	s.buffer.WriteByte('\n')
	if data != nil {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			s.buffer.WriteString("data: ")
			s.buffer.Write(line)
			s.buffer.WriteByte('\n')
		}
	}
	s.buffer.WriteByte('\n')
	if err := s.control.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := s.w.Write(s.buffer.Bytes())
	return err
}
