package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/cause"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
)

// watchFor is how long Why watches whether a checkpoint moves.
const watchFor = time.Second

// Session is a session of the database whose transaction holds a shard.
type Session struct {
	PID     int
	Idle    bool   // in its transaction: it waits for the program
	Waits   bool   // for a lock
	Query   string // the last; "" if the role may not see it
	Since   int64  // when that began, in microseconds since 1970; 0 if not known
	Blocker int    // the process id of the session that has the lock; 0 if there is none
	Blocks  string // the last query of that session
}

// Last is the last sign of life of a shard.
type Last struct {
	Holder string // the worker that has it and has not ended; "" if there is none
	Beat   int64  // its last heartbeat, in microseconds since 1970; 0 if it is not known
	Moved  int64  // when the checkpoint was moved, also in microseconds
}

// Why implements [projection.Admin].
func (e *Engine[Tx]) Why(ctx context.Context, name string, version int) (_ projection.Cause, err error) {
	defer cause.Set(ctx, &err)
	k := Key{name, version}
	c, err := e.why(ctx, k)
	if err != nil {
		return projection.Cause{}, e.about(ctx, k.String(), err)
	}
	return c, nil
}

func (e *Engine[Tx]) why(ctx context.Context, k Key) (c projection.Cause, err error) {
	shards, err := e.statusOf(ctx, k)
	if err != nil {
		return c, err
	}
	if len(shards) == 0 {
		return c, fmt.Errorf("%w: it has never run here: Status lists what has", es.ErrInvalid)
	}
	var found []projection.Cause
	for _, s := range shards {
		halted, err := e.halted(ctx, k, s)
		if err != nil {
			return c, err
		}
		found = append(found, halted)
	}
	if c = first(found); c.Code == projection.CauseNone {
		c, err = e.divided(ctx, k)
	}
	if err == nil && c.Code == projection.CauseNone {
		c, err = e.behind(ctx, k, shards)
	}
	if err == nil && c.Code == projection.CauseNone {
		c = notDue(shards)
	}
	if err == nil && c.Code == projection.CauseNone {
		c.Message = "it is up to date"
	}
	return c, err
}

func (e *Engine[Tx]) statusOf(ctx context.Context, k Key) ([]projection.Status, error) {
	return e.status(ctx, func(s projection.Status) bool { return s.Name == k.Name && s.Version == k.Version })
}

// causes are those of shards, the gravest first.
var causes = []projection.CauseCode{
	projection.CauseUnknownType, projection.CauseStopped, projection.CauseNoWorker, projection.CauseLocked, projection.CauseIdle, projection.CauseSource,
	projection.CauseDatabase, projection.CauseFailing, projection.CauseHandling, projection.CauseCatchingUp, projection.CauseFiltered,
}

// first returns the gravest cause, or the zero Cause.
func first(found []projection.Cause) projection.Cause {
	for _, code := range causes {
		if i := slices.IndexFunc(found, func(c projection.Cause) bool { return c.Code == code }); i >= 0 {
			return found[i]
		}
	}
	return projection.Cause{}
}

// isCurrent reports whether nothing is left for a shard of a log.
func isCurrent(s projection.Status) bool {
	return s.Lag != nil && s.Lag.Positions == 0 && s.Waiting == 0
}

// halted returns what keeps a shard from working at all, if something does.
func (e *Engine[Tx]) halted(ctx context.Context, k Key, s projection.Status) (projection.Cause, error) {
	c := projection.Cause{Shard: s.Shard, Since: s.ErrorAt}
	switch {
	case s.NeedsType != "":
		c.Code, c.Message = projection.CauseUnknownType, fmt.Sprintf("no running worker knows event type %q of %s", s.NeedsType, e.next(ctx, s))
		c.Remedy = "start a program that knows it, or retire the type in the codec"
		return c, nil
	case s.Worker == projection.InlineWorker && s.Error != "":
		c.Code, c.Message = projection.CauseStopped, fmt.Sprintf("inline, before %s: %s", e.next(ctx, s), s.Error)
		c.Remedy = "fix that; the next append of a program that has it inline continues there"
		return c, nil
	case s.Worker == projection.InlineWorker && !isCurrent(s):
		c.Code, c.Message = projection.CauseNoWorker, fmt.Sprintf("programs that do not have it inline have appended, and %d records are left", s.Lag.Positions)
		c.Remedy = "open the store with it in all programs that append; the next append of one that has it applies them first"
		return c, nil
	case s.Worker == "":
		return e.alone(ctx, k, s)
	}
	session, found, err := e.ledger.Holding(ctx, k, s.Shard)
	if err != nil || found && (session.Waits || session.Idle) {
		return session.cause(s.Shard), err
	}
	text, isSource := strings.CutPrefix(s.Error, sourcePrefix)
	switch {
	case s.Error == "":
		return projection.Cause{}, nil
	case isSource:
		c.Code, c.Message, c.Remedy = projection.CauseSource, fmt.Sprintf("source %s does not answer: %s", s.Source, text), "bring it back: the worker tries again"
	case strings.HasPrefix(s.Error, databasePrefix):
		c.Code, c.Message, c.Remedy = projection.CauseDatabase, s.Error, "fix the database: the worker tries again"
	case strings.Contains(s.Error, inHandle):
		c.Code, c.Message, c.Remedy = projection.CauseHandling, s.Error, "do less in Handle, and call nothing there that may wait"
	default:
		c.Code, c.Message = projection.CauseFailing, fmt.Sprintf("%s fails, and is tried again: %s", e.next(ctx, s), s.Error)
		c.Remedy = "fix that: the worker tries again, until OnError applies"
	}
	return c, nil
}

// next names the record that a shard handles next.
func (e *Engine[Tx]) next(ctx context.Context, s projection.Status) string {
	if r, found := e.left(ctx, s); found == some {
		return fmt.Sprintf("record %s (position %d)", r.ID(), r.Position)
	}
	return fmt.Sprintf("the record after %d", s.Cursor)
}

// Whether a record is left for a shard. It is not known if its source is another log, or if the log was not read in time.
const (
	unknown = iota
	none
	some
)

// left returns the first record that is left for a shard.
func (e *Engine[Tx]) left(ctx context.Context, s projection.Status) (_ es.Record, found int) {
	p, err := part.Parse(s.Shard)
	if s.Lag == nil || err != nil && s.Shard != inlineShard {
		return es.Record{}, unknown
	}
	ctx, cancel := context.WithTimeout(ctx, watchFor)
	defer cancel()
	for r, err := range e.ledger.Log().All(ctx, es.Position(s.Cursor), s.Filter) {
		if err != nil {
			return es.Record{}, unknown
		}
		if s.Shard == inlineShard || part.Of(r.Stream.String(), p.Of) == p {
			return r, some
		}
	}
	return es.Record{}, none
}

// alone returns the cause of a shard that has no worker.
func (e *Engine[Tx]) alone(ctx context.Context, k Key, s projection.Status) (projection.Cause, error) {
	last, err := e.ledger.Last(ctx, k, s.Shard)
	c := projection.Cause{Code: projection.CauseNoWorker, Shard: s.Shard, Message: "no process runs it", Remedy: "start a program that does"}
	if at := max(last.Beat, last.Moved); at > 0 {
		c.Since = TimeOf(at)
	}
	switch {
	case last.Holder == "" && s.Error != "":
		c.Code, c.Since = projection.CauseStopped, s.ErrorAt
		if text, named := strings.CutPrefix(s.Error, "projection "+k.String()+" "); named { // of a projection.Error
			c.Message = text
		} else {
			c.Message = fmt.Sprintf("stopped before %s: %s", e.next(ctx, s), s.Error)
		}
		c.Remedy = "remove the cause and start it again: it continues there"
	case isCurrent(s):
		return projection.Cause{}, err
	case last.Holder != "":
		c.Message = fmt.Sprintf("worker %s gives no sign of life: it has died, or it cannot write to the database", last.Holder)
		c.Remedy = "if the process runs, look at its log, and whether the database is locked, read-only or full; otherwise start it"
		if s.Error != "" {
			c.Message += "; its last error was: " + s.Error
		}
	}
	return c, err
}

// cause returns what a session waits for.
func (s Session) cause(shard string) projection.Cause {
	c := projection.Cause{Shard: shard}
	if s.Since > 0 {
		c.Since = TimeOf(s.Since)
	}
	switch {
	case s.Waits:
		c.Code, c.Message = projection.CauseLocked, fmt.Sprintf("its transaction, of process %d of the server, waits for a lock: %s", s.PID, excerpt(s.Query))
		c.Remedy = "end what has the lock"
		if s.Blocker != 0 {
			c.Message += fmt.Sprintf("; process %d has it: %s", s.Blocker, excerpt(s.Blocks))
			c.Remedy = fmt.Sprintf("wait for it, or select pg_terminate_backend(%d)", s.Blocker)
		}
	case s.Idle:
		c.Code, c.Message = projection.CauseIdle, fmt.Sprintf("its transaction, of process %d of the server, is idle after: %s", s.PID, excerpt(s.Query))
		c.Remedy = "do less in Handle, and call nothing there that may wait"
	}
	return c
}

// excerpt shortens a query for a message.
func excerpt(query string) string {
	query = strings.Join(strings.Fields(clean(query)), " ")
	if query == "" {
		return "(a query that this role may not see)"
	}
	const most = 200 // bytes
	if len(query) > most {
		return strings.ToValidUTF8(query[:most], "") + " ..."
	}
	return query
}

// divided returns whether the shards wait until they can be divided anew.
func (e *Engine[Tx]) divided(ctx context.Context, k Key) (c projection.Cause, err error) {
	o, err := e.ledger.Overview(ctx, k)
	if err != nil || o.Barrier < 0 {
		return c, err
	}
	var before []string
	for _, s := range o.Shards {
		if s.Cursor < o.Barrier {
			before = append(before, fmt.Sprintf("%s (at %d)", s.Name, s.Cursor))
		}
	}
	c.Code = projection.CauseRepartition
	c.Message = fmt.Sprintf("its shards wait at %d for %s, because it is divided into %d", o.Barrier, strings.Join(before, ", "), o.Partitions)
	c.Remedy = "wait; if those do not advance, see their Status"
	return c, nil
}

// behind returns why shards with workers, which report nothing, are not at the end.
func (e *Engine[Tx]) behind(ctx context.Context, k Key, before []projection.Status) (projection.Cause, error) {
	var found []projection.Cause
	var moving []projection.Status
	for _, s := range before {
		if s.Lag == nil || s.Lag.Positions == 0 {
			continue
		}
		if _, has := e.left(ctx, s); has != none {
			moving = append(moving, s)
			continue
		}
		found = append(found, projection.Cause{
			Code: projection.CauseFiltered, Shard: s.Shard, Message: fmt.Sprintf("the %d records after %d are excluded by its filter or belong to other shards", s.Lag.Positions, s.Cursor),
		})
	}
	if len(moving) == 0 {
		return first(found), nil
	}
	began := time.Now()
	var after []projection.Status
	for len(after) == 0 || time.Since(began) < watchFor && slices.ContainsFunc(after, func(s projection.Status) bool { return !isCurrent(s) }) {
		select {
		case <-time.After(watchFor / 10):
		case <-ctx.Done():
			return projection.Cause{}, ctx.Err()
		}
		var err error
		if after, err = e.statusOf(ctx, k); err != nil {
			return projection.Cause{}, err
		}
	}
	for _, s := range moving {
		i := slices.IndexFunc(after, func(now projection.Status) bool { return now.Shard == s.Shard })
		if i < 0 || isCurrent(after[i]) {
			continue
		}
		now := after[i]
		c := projection.Cause{Code: projection.CauseCatchingUp, Shard: s.Shard}
		if moved := float64(now.Cursor - s.Cursor); moved > 0 {
			rate := moved / time.Since(began).Seconds()
			c.Left = time.Duration(float64(now.Lag.Positions) / rate * float64(time.Second))
			c.Message = fmt.Sprintf("it advances by %.0f positions/s, and %d are left: about %v", rate, now.Lag.Positions, c.Left.Round(time.Second))
		} else {
			last, err := e.ledger.Last(ctx, k, s.Shard)
			if err != nil {
				return c, err
			}
			c.Code, c.Since = projection.CauseHandling, TimeOf(last.Moved)
			c.Message = fmt.Sprintf("worker %s has not moved the checkpoint, and reports no error: %s is being handled", now.Worker, e.next(ctx, now))
			c.Remedy = "look at the log of its process"
		}
		found = append(found, c)
	}
	return first(found), nil
}

// notDue returns that timers wait, if they do.
func notDue(shards []projection.Status) (c projection.Cause) {
	waiting, next := 0, time.Time{}
	for _, s := range shards {
		waiting += s.Waiting
		if s.Waiting > 0 && (next.IsZero() || s.NextDue.Before(next)) {
			next = s.NextDue
		}
	}
	if waiting > 0 {
		c.Code, c.Message = projection.CauseNotDue, fmt.Sprintf("it is up to date; %d records wait until they are due, the first at %s", waiting, next.Format(time.RFC3339))
	}
	return c
}
