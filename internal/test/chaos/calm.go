package chaos

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/sqlite"
)

// A watch records how much reaches the read models during fault injection. A run in which nothing does shows as little
// as a run without faults. If nothing has reached one for a while, all faults are undone until it does (a calm), so
// that the following faults hit a working system.
type watch struct {
	reached map[string]int // records by read model; the maximum, because a rebuilt model starts again
	grew    map[string]time.Time
	next    time.Time // time of the next check
	calms   int
	calm    time.Duration // total duration
}

const (
	stalled  = 15 * time.Second // duration without progress before a calm
	longCalm = 2 * time.Minute
)

// Names of the read models in the summary.
const (
	reachedStatement = "the statement"
	reachedLedger    = "the consumers' ledger"
	reachedFed       = "the read model built from topics"
)

func newWatch(topics bool) *watch {
	w := &watch{reached: map[string]int{reachedStatement: 0}, grew: make(map[string]time.Time)}
	if topics {
		w.reached[reachedLedger], w.reached[reachedFed] = 0, 0
	}
	w.reset()
	return w
}

// reset makes every read model count as having just grown.
func (w *watch) reset() {
	for name := range w.reached {
		w.grew[name] = time.Now()
	}
}

// note records how much has reached a read model.
func (w *watch) note(name string, n int) {
	if most, watched := w.reached[name]; watched && n > most {
		w.reached[name], w.grew[name] = n, time.Now()
	}
}

// since reports whether every read model has grown since a moment.
func (w *watch) since(moment time.Time) bool {
	for _, grew := range w.grew {
		if !grew.After(moment) {
			return false
		}
	}
	return true
}

// enough reports whether as many records have reached the read models as a run of this length requires.
func (w *watch) enough(d time.Duration) bool {
	for _, n := range w.reached {
		if n < leastOf(leastReached, d) {
			return false
		}
	}
	return true
}

// look counts the records in the read models, bypassing the proxies. One that does not answer counts as not grown.
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

// calmIfStuck checks the read models regularly, and undoes all faults for a while if they do not grow.
func (r *run) calmIfStuck(active map[string]activeFault) {
	if _, down := active[aboutServer]; down || time.Now().Before(r.watch.next) {
		return
	}
	r.look()
	if r.watch.since(time.Now().Add(-stalled)) {
		return
	}
	r.say("no progress, calm begins: %v", r.watch.reached)
	r.watch.calms++
	began := time.Now()
	for about := range active {
		r.endFault(active, about)
	}
	for !r.watch.since(began) && time.Since(began) < longCalm {
		time.Sleep(200 * time.Millisecond) // there is no notification of what has been read
		r.look()
	}
	r.say("the calm has ended: %v", r.watch.reached)
	r.watch.calm += time.Since(began)
	r.watch.reset()
}
