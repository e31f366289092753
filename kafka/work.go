package kafka

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/kafka/internal/client"
)

// work is one Run of a relay: sessions, one after the other, each of which ends with trouble.
type work struct {
	r               *Relay
	config          ConfigMap // of a producer, but for what a session adds
	store           string
	key             string // of the checkpoint
	id              string // the transactional id
	checkpointTopic string
	holder          string
	checkpointLimit int // max.message.bytes of that topic
	smallest        int // of the other topics that are known of

	// topics are, at least once, those that this process has written to since it has the lease: no checkpoint speaks of them.
	topics map[string]client.Topic

	holds func(ctx context.Context) bool // if set, tells whether the lease is still there, and ends ctx if not
}

func newWork(r *Relay) (*work, error) {
	config, err := client.RelayConfig(r.Cluster.Config)
	if err != nil {
		return nil, err
	}
	store := r.Log.ID()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	w := &work{
		r: r, config: config, store: store,
		key:             checkpointKey(store, r.name()),
		id:              r.Prefix + "." + store + "." + r.name(),
		checkpointTopic: CheckpointTopic(r.Prefix),
		holder:          fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:6]),
		smallest:        client.LargestMessage,
	}
	r.stats.set(func(s *RelayStats) { s.Holder = w.holder })
	return w, nil
}

// Outcomes of a session that are no trouble.
var (
	errRestart = errors.New("the producer must be made anew") // with what is now known
	errFenced  = errors.New("shut out by another producer with the same transactional id")
)

// work runs sessions until the context ends or there is an error that no repetition mends.
func (w *work) work(ctx context.Context) error {
	defer w.r.stats.set(func(s *RelayStats) { s.Working = false })
	for attempt := 0; ; {
		moved, err := w.session(ctx)
		if moved {
			attempt = 0
		}
		var final client.Permanent
		var killed crash
		var ahead *es.AheadError
		switch {
		case errors.As(err, &killed):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &final):
			return final.Err
		case errors.As(err, &ahead), errors.Is(err, es.ErrInvalid), errors.Is(err, es.ErrClosed), errors.Is(err, ErrFenced):
			return err
		case errors.Is(err, errRestart):
			continue
		}
		w.r.stats.set(func(s *RelayStats) { s.Retries++; s.Error, s.ErrorAt = err.Error(), time.Now() })
		w.r.log.Warn("kafka: relay begins again at its checkpoint", "error", err, "attempt", attempt+1)
		if err := client.Sleep(ctx, client.Backoff(attempt)); err != nil {
			return err
		}
		if w.holds != nil && !w.holds(ctx) {
			return ctx.Err()
		}
		attempt++
	}
}

func (w *work) session(ctx context.Context) (moved bool, err error) {
	if w.r.AtLeastOnce != nil {
		return w.sessionAtLeastOnce(ctx)
	}
	return w.sessionExactlyOnce(ctx)
}

// at is where a test may have a session end as if the process had been killed.
func (w *work) at(step string) error {
	if w.r.hook == nil {
		return nil
	}
	if err := w.r.hook(step); err != nil {
		return crash{err}
	}
	return nil
}

// A crash ends a session where it stands.
type crash struct{ error }

func (c crash) Unwrap() error { return c.error }

// share works while it has the lease, and waits for it while others have.
func (w *work) share(ctx context.Context) error {
	name := "relay/" + w.r.Prefix + "/" + w.r.name()
	lease := cmp.Or(w.r.Lease, DefaultRelayLease)
	for {
		if err := w.acquire(ctx, name, lease); err != nil {
			return err
		}
		err := w.hold(ctx, name, lease)
		// Whoever comes next need not wait; and if this does not arrive, he waits a little.
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = w.r.Leases.ReleaseLease(release, name, w.holder)
		cancel()
		if err != nil {
			return err
		}
	}
}

// acquire returns when it has the lease.
func (w *work) acquire(ctx context.Context, name string, lease time.Duration) error {
	waits := false
	for {
		l, err := w.r.Leases.AcquireLease(ctx, name, w.holder, lease, w.note())
		switch {
		case err == nil && l.Holder == w.holder:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, es.ErrInvalid), errors.Is(err, es.ErrClosed):
			return err
		case err != nil:
			w.r.log.Warn("kafka: relay cannot ask for its lease", "error", err)
		case !waits:
			waits = true
			w.r.log.Info("kafka: relay waits while another works", "holder", l.Holder)
		}
		if err := client.Sleep(ctx, lease/8+client.Backoff(0)); err != nil {
			return err
		}
	}
}

// hold works until the lease is lost, which is no error.
func (w *work) hold(ctx context.Context, name string, lease time.Duration) error {
	w.topics = nil
	working, lose := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { w.renew(working, name, lease, lose) })
	w.holds = func(ctx context.Context) bool {
		l, err := w.r.Leases.AcquireLease(ctx, name, w.holder, lease, w.note())
		if err == nil && l.Holder != w.holder {
			lose(errLeaseLost)
		}
		return ctx.Err() == nil
	}
	err := w.work(working)
	lose(nil)
	renewing.Wait()
	if ctx.Err() == nil && errors.Is(context.Cause(working), errLeaseLost) {
		w.r.log.Warn("kafka: relay has lost its lease and waits for it")
		return nil
	}
	return err
}

var errLeaseLost = errors.New("the lease is lost")

func (w *work) renew(ctx context.Context, name string, lease time.Duration, lose context.CancelCauseFunc) {
	until := time.Now().Add(lease)
	for {
		if client.Sleep(ctx, lease/3) != nil {
			return
		}
		asked, cancel := context.WithDeadline(ctx, until)
		began := time.Now()
		l, err := w.r.Leases.AcquireLease(asked, name, w.holder, lease, w.note())
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && l.Holder == w.holder:
			until = began.Add(lease)
		case err == nil, time.Now().After(until):
			lose(errLeaseLost)
			return
		default:
			w.r.log.Warn("kafka: relay cannot renew its lease", "error", err)
		}
	}
}

// note tells those who look at the leases how it goes.
func (w *work) note() string {
	s := w.r.Stats()
	return fmt.Sprintf("position %d, %d behind, %.0f records/s", s.Position, s.Lag, s.Rate)
}
