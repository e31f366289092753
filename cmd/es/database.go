package main

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/scheme"
	"github.com/thalo-go/es/projection"
)

// A database is a store with what only its backend can tell. The sequences end with an error at most, as those of es.Store do.
type database interface {
	es.Log
	es.Leases
	Close() error

	// These are of projection.Projections.
	Status(ctx context.Context) ([]projection.Status, error)
	Diff(ctx context.Context, before, after projection.Table) iter.Seq2[projection.Difference, error]
	Why(ctx context.Context, name string, version int) (projection.Cause, error)
	Rebuild(ctx context.Context, name string, version int) error
	Replay(ctx context.Context, name string, version int, from projection.Start) error
	Refilter(ctx context.Context, name string, version int, filter es.Filter, past projection.Past) error
	Rename(ctx context.Context, old, name string) error
	Forget(ctx context.Context, name string, version int) error
	Parked(ctx context.Context) iter.Seq2[projection.Parked, error]
	Timers(ctx context.Context, name string) iter.Seq2[projection.Timer, error]
	Retry(ctx context.Context, name string, version int, stream es.Stream) error
	Drop(ctx context.Context, name string, version int, stream es.Stream) error

	Redact(ctx context.Context, stream es.Stream, version es.Version, reason string) (es.Redaction, error)

	// where names the store for people, without a password.
	where() string

	// streams returns the head of each stream, by kind and id; all kinds if it is "". It reads indexes and not the log.
	streams(ctx context.Context, kind string) iter.Seq2[head, error]

	// snapshots returns the snapshots by position.
	snapshots(ctx context.Context) iter.Seq2[es.Snapshot, error]

	// commands returns the commands that took effect, in no order.
	commands(ctx context.Context) iter.Seq2[command, error]

	// checkpoints returns those of es.Checkpoints.
	checkpoints(ctx context.Context) iter.Seq2[checkpoint, error]

	// damaged asks the database whether its own files are as they should be, if that is something it can tell.
	damaged(ctx context.Context) (damages []string, asked bool, err error)
}

// A head is the last record of a stream.
type head struct {
	stream   es.Stream
	version  es.Version
	position es.Position
	time     time.Time
}

// A command is one that took effect, as versions of a stream.
type command struct {
	stream      es.Stream
	id          string
	first, last es.Version
}

// A checkpoint is the position that a reader of the log has stored.
type checkpoint struct {
	name     string
	position es.Position
}

// isFilterMark reports whether a checkpoint is not a position, but says which filter a relay has that publishes at least once.
func (c checkpoint) isFilterMark() bool {
	return strings.HasPrefix(c.name, "relay/") && strings.HasSuffix(c.name, "/filter")
}

// open opens the store that the command line names, to be read or, on request, to be written.
func (s *session) open(readOnly bool) (database, error) { return s.openStore(s.cli.Store, readOnly) }

func (s *session) openStore(store string, readOnly bool) (database, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cli.Timeout)
	defer cancel()
	if isPostgres(store) {
		return openPostgres(ctx, store, s.cli.Schema, readOnly)
	}
	path := strings.TrimPrefix(store, "sqlite:")
	if err := scheme.Refuse(path, "the path of a SQLite file, a URL of postgres:// or postgresql://, or a connection string such as host=db.internal dbname=bank"); err != nil {
		return nil, err
	}
	return openSQLite(path, readOnly)
}

func isPostgres(store string) bool {
	return strings.HasPrefix(store, "postgres:") || strings.HasPrefix(store, "postgresql:") || keywords.MatchString(store)
}

var (
	keywords   = regexp.MustCompile(`(^|\s)(host|dbname|service)\s*=`) // libpq's other form: host=db dbname=bank
	inURL      = regexp.MustCompile(`://([^\s/@]*?):\S*@`)
	inKeywords = regexp.MustCompile(`(?i)(password\s*=\s*)('(\\.|[^'\\])*'?|[^\s&]*)`)
)

// redact takes passwords out of a message: whatever looks like one in a URL or a list of keywords, and the store's own.
func redact(message, store string) string {
	secrets := []string{}
	if u, err := url.Parse(store); err == nil && u.User != nil {
		if password, set := u.User.Password(); set {
			secrets = append(secrets, password, url.QueryEscape(password), url.PathEscape(password))
		}
		secrets = append(secrets, u.Query().Get("password"), u.Query().Get("sslpassword"))
	}
	message = inURL.ReplaceAllString(message, "://$1:xxxxx@")
	message = inKeywords.ReplaceAllString(message, "${1}xxxxx")
	for _, secret := range secrets {
		if len(secret) >= 4 { // a shorter one may be part of any word
			message = strings.ReplaceAll(message, secret, "xxxxx")
		}
	}
	return message
}

// failed is a sequence that ends at once.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

// within says what was being done when an error came.
func within(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
