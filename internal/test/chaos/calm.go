package chaos

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/sqlite"
)

// A watch is on what reaches the read models while the nemesis goes about. A run in which nothing does shows as little as one in which
// nothing is broken: when nothing has come through for a while there is a calm, and the faults that follow hit a system that works.
type watch struct {
	reached map[string]int // records, by read model; the most that were seen, for one that is built anew begins again
	grew    map[string]time.Time
	next    time.Time // when it looks again
	calms   int
	calm    time.Duration // all of them
}

const (
	stifled  = 15 * time.Second // without progress, before a calm
	longCalm = 2 * time.Minute
)

// Read models, as the summary names them.
const (
	reachedStatement = "the statement"
	reachedLedger    = "the ledger of consumers"
	reachedFed       = "the model fed from topics"
)

func newWatch(topics bool) *watch {
	w := &watch{reached: map[string]int{reachedStatement: 0}, grew: make(map[string]time.Time)}
	if topics {
		w.reached[reachedLedger], w.reached[reachedFed] = 0, 0
	}
	w.forgive()
	return w
}

// forgive lets all begin as if it had just grown.
func (w *watch) forgive() {
	for name := range w.reached {
		w.grew[name] = time.Now()
	}
}

// note notes how much has reached a read model.
func (w *watch) note(name string, n int) {
	if most, watched := w.reached[name]; watched && n > most {
		w.reached[name], w.grew[name] = n, time.Now()
	}
}

// since tells whether every read model has grown since a moment.
func (w *watch) since(moment time.Time) bool {
	for _, grew := range w.grew {
		if !grew.After(moment) {
			return false
		}
	}
	return true
}

// enough tells whether as much has come through as a run of this length must show.
func (w *watch) enough(d time.Duration) bool {
	for _, n := range w.reached {
		if n < leastOf(leastReached, d) {
			return false
		}
	}
	return true
}

// look looks at the read models, past the proxies. What does not answer has not grown.
func (r *run) look() {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
	defer cancel()
	if conn, err := pgx.Connect(ctx, r.url); err == nil {
		for name, sql := range map[string]string{reachedStatement: countStatement, reachedLedger: countLedger} {
			var n int
			if conn.QueryRow(ctx, modelled(sql, r.schema)).Scan(&n) == nil {
				r.watch.note(name, n)
			}
		}
		_ = conn.Close(ctx)
	}
	if store, err := (sqlite.Config{ReadOnly: true}).Open(fedModel(r.folder)); err == nil {
		var n int
		if store.DB().QueryRowContext(ctx, countFed).Scan(&n) == nil {
			r.watch.note(reachedFed, n)
		}
		_ = store.Close()
	}
	r.watch.next = time.Now().Add(2 * time.Second)
}

// breathe looks from time to time, and makes a calm when it must.
func (r *run) breathe(afflictions map[string]affliction) {
	if _, down := afflictions[aboutServer]; down || time.Now().Before(r.watch.next) {
		return
	}
	r.look()
	if r.watch.since(time.Now().Add(-stifled)) {
		return
	}
	r.say("nothing comes through, a calm: %v", r.watch.reached)
	r.watch.calms++
	began := time.Now()
	for about := range afflictions {
		r.relieve(afflictions, about)
	}
	for !r.watch.since(began) && time.Since(began) < longCalm {
		time.Sleep(200 * time.Millisecond) // nobody tells of what he has read
		r.look()
	}
	r.say("the calm is over: %v", r.watch.reached)
	r.watch.calm += time.Since(began)
	r.watch.forgive()
}
