package eshttp

import (
	"context"
	"io"
	"net/http"
	"path"
	"time"

	"github.com/thalo-go/es"
)

// readyLimit is how long a database gets to answer.
const readyLimit = 2 * time.Second

// Health returns a handler of health checks, for any path prefix:
//
//   - GET …/live answers 200 while the process serves requests. It does not ask the database, because a restart would not help.
//   - GET …/ready asks the log for its head, and answers 200, or 503 if that fails or takes more than 2 seconds. It does not ask how
//     far projections are: a rebuild would take every process out of service.
func Health(log es.Log) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		case path.Base(r.URL.Path) == "live":
		case path.Base(r.URL.Path) == "ready":
			ctx, cancel := context.WithTimeout(r.Context(), readyLimit)
			defer cancel()
			if _, err := es.Head(ctx, log); err != nil {
				Error(w, r, err)
				return
			}
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n") // the client has gone
	})
}
