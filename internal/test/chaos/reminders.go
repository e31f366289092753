package chaos

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// Reminders are effects of timers: one cent, some time after some of the withdrawals. Two reactions give them. One keeps its timers in Postgres
// beside the log, the other in SQLite, so it reads the log of another store again when they are due.
const (
	reactionReminder = "reminder"
	reactionNudge    = "nudge"
)

// reminders returns the models of both reactions, with what a log requires. An effect that comes early has another value than the one wanted.
func reminders(log []es.Record) []Model {
	var models []Model
	for _, kind := range []string{reactionReminder, reactionNudge} {
		models = append(models, remindersOf(kind, log))
	}
	return models
}

func remindersOf(kind string, log []es.Record) Model {
	m := Model{Name: kind, Want: make(map[string]string), Rows: make(map[string]string)}
	due := make(map[string]time.Time)
	for _, r := range log {
		if at, is := reminderDue(r); is {
			due[r.ID()], m.Want[r.ID()] = at, "given when it was due"
			continue
		}
		if r.Stream.Kind != kind || r.Type != "deposited" {
			continue
		}
		cause := r.Meta[es.MetaCausation]
		if _, again := m.Rows[cause]; again {
			m.Repeated = append(m.Repeated, cause)
		}
		m.Rows[cause] = "given when it was due"
		if early := due[cause].Sub(r.Time); early > 0 {
			m.Rows[cause] = fmt.Sprintf("given %v early", early)
		}
	}
	return m
}

// reminderDue returns when a record is due, if there is a reminder of it: at once, or up to 4 s later, which is twice a lease.
func reminderDue(r es.Record) (at time.Time, is bool) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.ID())) // a hash has no error
	n := h.Sum32()
	if r.Stream.Kind != kindAccount || r.Type != "withdrawn" || n%4 > 0 {
		return time.Time{}, false
	}
	return r.Time.Add(time.Duration(n/4%40) * 100 * time.Millisecond), true
}

// remind returns a reaction whose effects are on streams of a kind, which is its name too.
func (a *actor) remind(kind string, source projection.Source, repo *accounts) projection.Reaction {
	return projection.Reaction{
		Name: kind, Source: source, Filter: es.Filter{Kinds: []string{kindAccount}, Types: []string{"withdrawn"}}, Partitions: 2, Lease: a.Lease, Batch: 20,
		From: projection.Beginning(),
		Due: func(r es.Record) (time.Time, error) {
			at, is := reminderDue(r)
			if !is {
				return time.Time{}, nil
			}
			return at, nil
		},
		Handle: func(ctx context.Context, r es.Record) error {
			if _, is := reminderDue(r); !is {
				return nil
			}
			if _, err := repo.Execute(ctx, r.Stream.ID, account.Open{Owner: r.Stream.ID}, es.CommandID("open")); err != nil {
				return err
			}
			_, err := repo.Execute(ctx, r.Stream.ID, account.Deposit{Amount: 1}, es.Step("remind"))
			return err
		},
	}
}

// nudgeFile returns the file of the timers that are kept in SQLite. All readers share it.
func nudgeFile(folder string) string { return filepath.Join(folder, "nudges.db") }

// runReminders runs both reactions until the context ends.
func (a *actor) runReminders(ctx context.Context, store es.Log, react func(context.Context, projection.Reaction) error) error {
	timers, err := sqlite.Open(nudgeFile(a.Folder))
	if err != nil {
		return err
	}
	own := es.NewRepo(store, reactionReminder, account.Rules{}, account.Codec)
	other := es.NewRepo(store, reactionNudge, account.Rules{}, account.Codec)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- a.went(ctx, reactionReminder, react(ctx, a.remind(reactionReminder, nil, own))) }()
	go func() {
		ended <- a.went(ctx, reactionNudge, timers.React(ctx, a.remind(reactionNudge, projection.FromLog(store), other)))
	}()
	err = <-ended
	cancel()
	err = errors.Join(err, <-ended)
	background := context.Background()
	return errors.Join(err, own.Close(background), other.Close(background), timers.Close())
}

// awaitReminders waits until both reactions have read up to a position and no timer is left. They append while it waits.
func (r *run) awaitReminders(ctx context.Context, store projection.Admin, head es.Position) error {
	timers, err := sqlite.Open(nudgeFile(r.folder))
	if err != nil {
		return err
	}
	defer timers.Close()
	for name, admin := range map[string]projection.Admin{reactionReminder: store, reactionNudge: timers} {
		if err := admin.WaitFor(ctx, name, head); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for {
			status, err := admin.Status(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			waiting := 0
			for _, s := range status {
				if s.Name == name {
					waiting += s.Waiting
				}
			}
			if waiting == 0 {
				break
			}
			if rest(ctx, 50*time.Millisecond); ctx.Err() != nil {
				return fmt.Errorf("%s: %d timers wait: %w", name, waiting, ctx.Err())
			}
		}
	}
	return nil
}
