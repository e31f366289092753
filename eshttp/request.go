package eshttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/thalo-go/es"
)

// Headers of requests and responses.
const (
	headerKey      = "Idempotency-Key"
	headerPosition = "Es-Position"
)

// maxKey is the limit of bytes in an Idempotency-Key.
const maxKey = 255

// Options returns the options of a command that a request carries:
//
//   - Idempotency-Key becomes [es.CommandID], so that a client can send a request again. The id is made of method, path and key:
//     one key in two requests to different paths is two commands. A key has 1 to 255 visible ASCII characters; quotes around it
//     are left out.
//   - If-Match becomes [es.ExpectVersion]. It has one ETag, as [SetVersion] sets it. A weak one is taken, because proxies that
//     compress make it weak.
//   - If-None-Match: * becomes ExpectVersion(0): the command must create the aggregate.
//
// A header that is not understood is an error that wraps [es.ErrInvalid].
func Options(r *http.Request) ([]es.ExecuteOption, error) {
	var options []es.ExecuteOption
	if _, found := r.Header[headerKey]; found {
		key, err := idempotencyKey(r)
		if err != nil {
			return nil, err
		}
		options = append(options, es.CommandID("http/"+r.Method+r.URL.Path+"#"+key))
	}
	version, found, err := expected(r)
	if err != nil {
		return nil, err
	}
	if found {
		options = append(options, es.ExpectVersion(version))
	}
	return options, nil
}

func idempotencyKey(r *http.Request) (string, error) {
	key, err := single(r, headerKey)
	if err != nil {
		return "", err
	}
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", invalid("%s is not of 1 to %d visible ASCII characters", headerKey, maxKey)
	}
	return key, nil
}

// expected returns the version that If-Match or If-None-Match names.
func expected(r *http.Request) (version es.Version, found bool, err error) {
	_, match := r.Header["If-Match"]
	_, none := r.Header["If-None-Match"]
	switch {
	case match && none:
		return 0, false, invalid("If-Match and If-None-Match are both there: send one of them")
	case match:
		tag, err := single(r, "If-Match")
		if err != nil {
			return 0, false, err
		}
		quoted := strings.TrimPrefix(tag, "W/")
		v, err := strconv.ParseInt(strings.Trim(quoted, `"`), 10, 64)
		if err != nil || v < 0 || quoted != etag(es.Version(v)) {
			return 0, false, invalid("If-Match %.40q is not an ETag of this service, such as \"7\"", tag)
		}
		return es.Version(v), true, nil
	case none:
		tag, err := single(r, "If-None-Match")
		if err != nil {
			return 0, false, err
		}
		if tag != "*" {
			return 0, false, invalid("If-None-Match %.40q of a command is not *", tag)
		}
		return 0, true, nil
	}
	return 0, false, nil
}

// single returns the value of a header that a request has.
func single(r *http.Request, name string) (string, error) {
	values := r.Header.Values(name)
	if len(values) != 1 {
		return "", invalid("%s is there %d times: send it once", name, len(values))
	}
	return strings.TrimSpace(values[0]), nil
}

func etag(v es.Version) string { return `"` + strconv.FormatInt(int64(v), 10) + `"` }

// SetVersion sets the ETag of a response to a version, which [Options] takes from If-Match. Call it before the body is written.
func SetVersion(w http.ResponseWriter, v es.Version) { w.Header().Set("ETag", etag(v)) }

// SetPosition sets the header Es-Position of a response to the position of a command's last event. A client that sends the header
// with a later request sees what it has written; see [WaitFor]. Call it before the body is written.
func SetPosition(w http.ResponseWriter, p es.Position) {
	w.Header().Set(headerPosition, strconv.FormatInt(int64(p), 10))
}

// waitLimit is how long WaitFor waits.
const waitLimit = 10 * time.Second

// Waiter waits for a projection. The stores of packages sqlite and postgres are Waiters.
type Waiter interface {
	// WaitFor is that of [projection.Admin].
	WaitFor(ctx context.Context, name string, position es.Position) error
}

// WaitFor waits until a projection has applied the position in the header Es-Position of a request, so that a client that sends the
// position of its last command reads its own writes. It waits for at most 10 seconds, and not without the header.
//
// An error wraps [es.ErrUnavailable] if the projection does not get there, and [es.ErrInvalid] if the header is not a position.
func WaitFor(r *http.Request, store Waiter, projection string) error {
	if _, found := r.Header[headerPosition]; !found {
		return nil
	}
	text, err := single(r, headerPosition)
	if err != nil {
		return err
	}
	position, err := parsePosition(headerPosition, text)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), waitLimit)
	defer cancel()
	err = store.WaitFor(ctx, projection, position)
	if err != nil && ctx.Err() != nil && !errors.Is(err, es.ErrUnavailable) {
		return fmt.Errorf("eshttp: %w: %w", es.ErrUnavailable, err)
	}
	return err
}

func parsePosition(header, text string) (es.Position, error) {
	p, err := strconv.ParseInt(text, 10, 64)
	if err != nil || p < 0 {
		return 0, invalid("%s %.40q is not a position, such as 7", header, text)
	}
	return es.Position(p), nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("eshttp: %w: %s", es.ErrInvalid, fmt.Sprintf(format, args...))
}
