package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/relaynote"
	"github.com/thalo-go/es/kafka/internal/client"
)

// runLeased publishes while it holds the lease, and waits for it while another process does.
func (r *Relay) runLeased(ctx context.Context) error {
	for {
		if err := r.acquire(ctx); err != nil {
			return err
		}
		err := r.runHolding(ctx)
		// Release the lease so that the next relay starts at once. If this fails, it starts when the lease expires.
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = r.Leases.ReleaseLease(release, r.lease(), r.holder)
		cancel()
		if err != nil {
			return err
		}
	}
}

// acquire returns when it has the lease.
func (r *Relay) acquire(ctx context.Context) error {
	waiting := false
	for {
		l, err := r.renew(ctx)
		switch {
		case err == nil && l.Holder == r.holder:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, es.ErrInvalid), errors.Is(err, es.ErrClosed):
			return err
		case err != nil:
			r.Stats.failed(err)
			r.log.Warn("kafka: relay lease not acquired", "err", err)
		case !waiting:
			waiting = true
			r.log.Info("kafka: relay waits for the lease", "holder", l.Holder)
		}
		if err := client.Sleep(ctx, r.Lease/8+client.Backoff(0)); err != nil {
			return err
		}
	}
}

// renew acquires or extends the lease.
func (r *Relay) renew(ctx context.Context) (es.Lease, error) {
	return r.Leases.AcquireLease(ctx, r.lease(), r.holder, r.Lease, r.note())
}

var errLeaseLost = errors.New("the lease is lost")

// runHolding runs sessions until the lease is lost, which is not an error.
func (r *Relay) runHolding(ctx context.Context) error {
	r.topics = nil
	holding, lose := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() { r.keepLease(holding, lose) })
	r.renewNow = func(ctx context.Context) bool {
		l, err := r.renew(ctx)
		if err == nil && l.Holder != r.holder {
			lose(errLeaseLost)
		}
		return ctx.Err() == nil
	}
	err := r.runSessions(holding)
	lose(nil)
	renewing.Wait()
	if ctx.Err() == nil && errors.Is(context.Cause(holding), errLeaseLost) {
		r.Stats.unknown()
		r.log.Warn("kafka: relay has lost its lease")
		return nil
	}
	return err
}

// keepLease renews the lease until ctx is done, and calls lose when it cannot.
func (r *Relay) keepLease(ctx context.Context, lose context.CancelCauseFunc) {
	until := time.Now().Add(r.Lease)
	for {
		if client.Sleep(ctx, r.Lease/3) != nil {
			return
		}
		asked, cancel := context.WithDeadline(ctx, until)
		began := time.Now()
		l, err := r.renew(asked)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && l.Holder == r.holder:
			until = began.Add(r.Lease)
		case err == nil, time.Now().After(until):
			lose(errLeaseLost)
			return
		default:
			r.Stats.failed(err)
			r.log.Warn("kafka: relay lease not renewed", "err", err)
		}
	}
}

// note is the text of the lease, for tools that list leases.
func (r *Relay) note() string {
	s := r.Stats.Snapshot()
	return relaynote.Note{Position: int64(s.Position), Behind: int64(max(0, s.Head-s.Position)), Rate: s.Rate, Age: s.Age, Throttle: s.Throttle, Error: s.Error}.String()
}
