package eshttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/thalo-go/es"
)

// problem is the body of an error, as RFC 9457 has it.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code,omitempty"`           // of an es.InvariantError
	Key    string `json:"idempotencyKey,omitempty"` // to send the request with again
}

// Error writes an error as the response to a request, in the form application/problem+json of RFC 9457:
//
//	[*es.InvariantError]                 422, with its Code as "code"
//	[*es.ConflictError], [*es.DuplicateError], [*es.AheadError]   409
//	[es.ErrInvalid]                      400
//	[es.ErrExpired]                      410
//	[es.ErrUnknownOutcome]               504, with the Idempotency-Key to send again
//	[es.ErrUnavailable], [es.ErrClosed]  503, with Retry-After
//	the end of a context                 503, with Retry-After
//	[*http.MaxBytesError]                413
//	any other                            500
//
// The texts of errors up to 422 are sent. Those of others may tell about the inside of the service: they go to the ErrorLog of the
// server, unless the client has gone.
func Error(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(r, err)
	if p.Status >= 500 {
		report(r, "status %d: %v", p.Status, err)
	}
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control", headerPosition} {
		h.Del(name) // as of a success
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1") // second
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client has gone
}

func problemOf(r *http.Request, err error) problem {
	var (
		refused   *es.InvariantError
		conflict  *es.ConflictError
		duplicate *es.DuplicateError
		ahead     *es.AheadError
		large     *http.MaxBytesError
	)
	sent := func(status int, detail string) problem {
		return problem{Title: http.StatusText(status), Status: status, Detail: detail}
	}
	switch {
	case err == nil:
		return sent(http.StatusInternalServerError, "")
	case errors.Is(err, es.ErrUnknownOutcome):
		p := sent(http.StatusGatewayTimeout, "It is not known whether the command took effect. Send the request again with the same "+headerKey+".")
		if key, err := idempotencyKey(r); err == nil {
			p.Key = key
		} else {
			p.Detail = "It is not known whether the command took effect. Read the state before you send it again."
		}
		return p
	case errors.As(err, &refused):
		p := sent(http.StatusUnprocessableEntity, refused.Message)
		p.Code = refused.Code
		return p
	case errors.As(err, &conflict), errors.As(err, &duplicate), errors.As(err, &ahead):
		return sent(http.StatusConflict, err.Error())
	case errors.Is(err, es.ErrExpired):
		return sent(http.StatusGone, err.Error())
	case errors.Is(err, es.ErrUnavailable), errors.Is(err, es.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return sent(http.StatusServiceUnavailable, "The service cannot answer now. Send the request again later.")
	case errors.As(err, &large):
		return sent(http.StatusRequestEntityTooLarge, err.Error())
	case errors.Is(err, es.ErrInvalid):
		return sent(http.StatusBadRequest, err.Error())
	}
	return sent(http.StatusInternalServerError, "")
}

// report writes a line to the log that net/http writes to, unless the client has gone.
func report(r *http.Request, format string, args ...any) {
	if r.Context().Err() != nil {
		return
	}
	to := log.Default() //nolint:forbidigo // as net/http does
	if s, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && s.ErrorLog != nil {
		to = s.ErrorLog
	}
	//nolint:forbidigo // not a global one
	to.Printf("eshttp: %s %s: %s", r.Method, r.URL.Path, fmt.Sprintf(format, args...))
}
