package memory_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/engine"
	"github.com/thalo-go/es/internal/part"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/projection/memory"
)

// errTransient is the error of an injected fault.
var errTransient = errors.New("the connection is lost")

// fault is what happens at one call of a ledger.
type fault int

const (
	failBefore fault = iota // the call does nothing and returns a transient error
	failAfter               // the call takes effect, and a transaction commits, but it returns a transient error
	replaced                // before the call other workers take all shards, work on them for a while, and end
)

func (f fault) String() string {
	return [...]string{"call fails", "call takes effect and fails", "other workers take the shards before the call"}[f]
}

// injector is a ledger with a fault at one of its calls.
type injector struct {
	memory.Ledger
	fault   fault
	at      int                       // the call with the fault, from 1
	replace func(ctx context.Context) // lets other workers take the shards

	mu     sync.Mutex
	calls  int
	method string // of the call with the fault; "" before it
}

// happened returns the method of the call with the fault, or "" if there was no such call.
func (in *injector) happened() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.method
}

// Passing implements engine.Ledger.
func (in *injector) Passing(err error) bool { return errors.Is(err, errTransient) }

// call makes a call of the ledger, with the fault if it is due. Other workers cannot take shards in a transaction, as in the databases.
func (in *injector) call(ctx context.Context, method string, inTransaction bool, do func() error) error {
	in.mu.Lock()
	if !inTransaction || in.fault != replaced {
		in.calls++
	}
	due := in.calls == in.at && in.method == ""
	if due {
		in.method = method
	}
	in.mu.Unlock()
	switch {
	case due && in.fault == failBefore:
		return errTransient
	case due && in.fault == replaced:
		in.replace(ctx)
	}
	err := do()
	if due && in.fault == failAfter && err == nil {
		err = errTransient
	}
	return err
}

// Transact implements engine.Ledger.
func (in *injector) Transact(ctx context.Context, o engine.Options, work func(ctx context.Context, tx *memory.Tx) error) error {
	return in.call(ctx, "Transact", false, func() error { return in.Ledger.Transact(ctx, o, work) })
}

// Overview implements engine.Ledger.
func (in *injector) Overview(ctx context.Context, k engine.Key) (o engine.Overview, err error) {
	err = in.call(ctx, "Overview", false, func() (err error) {
		o, err = in.Ledger.Overview(ctx, k)
		return err
	})
	return o, err
}

// Blocked implements engine.Ledger.
func (in *injector) Blocked(ctx context.Context, k engine.Key, shard string) (streams []es.Stream, err error) {
	err = in.call(ctx, "Blocked", false, func() (err error) {
		streams, err = in.Ledger.Blocked(ctx, k, shard)
		return err
	})
	return streams, err
}

// Requests implements engine.Ledger.
func (in *injector) Requests(ctx context.Context, k engine.Key) (requests []engine.Request, err error) {
	err = in.call(ctx, "Requests", false, func() (err error) {
		requests, err = in.Ledger.Requests(ctx, k)
		return err
	})
	return requests, err
}

// FirstParked implements engine.Ledger.
func (in *injector) FirstParked(ctx context.Context, k engine.Key, stream es.Stream) (p projection.Parked, request string, found bool, err error) {
	err = in.call(ctx, "FirstParked", false, func() (err error) {
		p, request, found, err = in.Ledger.FirstParked(ctx, k, stream)
		return err
	})
	return p, request, found, err
}

// Heartbeat implements engine.Ledger.
func (in *injector) Heartbeat(ctx context.Context, k engine.Key, worker string, lease time.Duration, lacks []string) error {
	return in.call(ctx, "Heartbeat", false, func() error { return in.Ledger.Heartbeat(ctx, k, worker, lease, lacks) })
}

// Lacks implements engine.Ledger.
func (in *injector) Lacks(ctx context.Context, k engine.Key) (lacks map[string][]string, err error) {
	err = in.call(ctx, "Lacks", false, func() (err error) {
		lacks, err = in.Ledger.Lacks(ctx, k)
		return err
	})
	return lacks, err
}

// Need implements engine.Ledger.
func (in *injector) Need(ctx context.Context, k engine.Key, s engine.Shard, eventType string) error {
	return in.call(ctx, "Need", false, func() error { return in.Ledger.Need(ctx, k, s, eventType) })
}

// Leave implements engine.Ledger.
func (in *injector) Leave(ctx context.Context, k engine.Key, worker string) error {
	return in.call(ctx, "Leave", false, func() error { return in.Ledger.Leave(ctx, k, worker) })
}

// Take implements engine.Ledger.
func (in *injector) Take(ctx context.Context, k engine.Key, seen engine.Shard, worker string) (s engine.Shard, taken bool, err error) {
	err = in.call(ctx, "Take", false, func() (err error) {
		s, taken, err = in.Ledger.Take(ctx, k, seen, worker)
		return err
	})
	return s, taken, err
}

// Release implements engine.Ledger.
func (in *injector) Release(ctx context.Context, k engine.Key, s engine.Shard) error {
	return in.call(ctx, "Release", false, func() error { return in.Ledger.Release(ctx, k, s) })
}

// Fail implements engine.Ledger.
func (in *injector) Fail(ctx context.Context, k engine.Key, s engine.Shard, message string) error {
	return in.call(ctx, "Fail", false, func() error { return in.Ledger.Fail(ctx, k, s, message) })
}

// Request implements engine.Ledger.
func (in *injector) Request(ctx context.Context, k engine.Key, stream es.Stream, want string) (found bool, err error) {
	err = in.call(ctx, "Request", false, func() (err error) {
		found, err = in.Ledger.Request(ctx, k, stream, want)
		return err
	})
	return found, err
}

// Lock implements engine.Ledger.
func (in *injector) Lock(ctx context.Context, tx *memory.Tx, k engine.Key) (h engine.Header, err error) {
	err = in.call(ctx, "Lock", true, func() (err error) {
		h, err = in.Ledger.Lock(ctx, tx, k)
		return err
	})
	return h, err
}

// SetPartitions implements engine.Ledger.
func (in *injector) SetPartitions(ctx context.Context, tx *memory.Tx, k engine.Key, partitions int) error {
	return in.call(ctx, "SetPartitions", true, func() error { return in.Ledger.SetPartitions(ctx, tx, k, partitions) })
}

// SetBarrier implements engine.Ledger.
func (in *injector) SetBarrier(ctx context.Context, tx *memory.Tx, k engine.Key, barrier projection.Cursor) error {
	return in.call(ctx, "SetBarrier", true, func() error { return in.Ledger.SetBarrier(ctx, tx, k, barrier) })
}

// InsertShards implements engine.Ledger.
func (in *injector) InsertShards(ctx context.Context, tx *memory.Tx, k engine.Key, names []string, like engine.Shard) error {
	return in.call(ctx, "InsertShards", true, func() error { return in.Ledger.InsertShards(ctx, tx, k, names, like) })
}

// IdleShards implements engine.Ledger.
func (in *injector) IdleShards(ctx context.Context, tx *memory.Tx, k engine.Key) (idle []engine.Shard, all int, err error) {
	err = in.call(ctx, "IdleShards", true, func() (err error) {
		idle, all, err = in.Ledger.IdleShards(ctx, tx, k)
		return err
	})
	return idle, all, err
}

// Replace implements engine.Ledger.
func (in *injector) Replace(ctx context.Context, tx *memory.Tx, k engine.Key, names []string, like engine.Shard, shardOf func(es.Stream) string) error {
	return in.call(ctx, "Replace", true, func() error { return in.Ledger.Replace(ctx, tx, k, names, like, shardOf) })
}

// Move implements engine.Ledger.
func (in *injector) Move(ctx context.Context, tx *memory.Tx, k engine.Key, s engine.Shard, to engine.Target) (moved bool, err error) {
	err = in.call(ctx, "Move", true, func() (err error) {
		moved, err = in.Ledger.Move(ctx, tx, k, s, to)
		return err
	})
	return moved, err
}

// Park implements engine.Ledger.
func (in *injector) Park(ctx context.Context, tx *memory.Tx, k engine.Key, shard string, r *es.Record, message string, attempts int) error {
	return in.call(ctx, "Park", true, func() error { return in.Ledger.Park(ctx, tx, k, shard, r, message, attempts) })
}

// Unpark implements engine.Ledger.
func (in *injector) Unpark(ctx context.Context, tx *memory.Tx, k engine.Key, r es.Record) error {
	return in.call(ctx, "Unpark", true, func() error { return in.Ledger.Unpark(ctx, tx, k, r) })
}

// FailParked implements engine.Ledger.
func (in *injector) FailParked(ctx context.Context, tx *memory.Tx, k engine.Key, r es.Record, message string) error {
	return in.call(ctx, "FailParked", true, func() error { return in.Ledger.FailParked(ctx, tx, k, r, message) })
}

// Workers implements engine.Ledger.
func (in *injector) Workers(ctx context.Context, tx *memory.Tx, k engine.Key) (n int, err error) {
	err = in.call(ctx, "Workers", true, func() (err error) {
		n, err = in.Ledger.Workers(ctx, tx, k)
		return err
	})
	return n, err
}

// Forget implements engine.Ledger.
func (in *injector) Forget(ctx context.Context, tx *memory.Tx, k engine.Key) error {
	return in.call(ctx, "Forget", true, func() error { return in.Ledger.Forget(ctx, tx, k) })
}

// Insert implements engine.Ledger.
func (in *injector) Insert(ctx context.Context, tx *memory.Tx, k engine.Key, h engine.Header) (inserted bool, err error) {
	err = in.call(ctx, "Insert", true, func() (err error) {
		inserted, err = in.Ledger.Insert(ctx, tx, k, h)
		return err
	})
	return inserted, err
}

// Restart implements engine.Ledger.
func (in *injector) Restart(ctx context.Context, tx *memory.Tx, k engine.Key, h engine.Header) error {
	return in.call(ctx, "Restart", true, func() error { return in.Ledger.Restart(ctx, tx, k, h) })
}

// Describe implements engine.Ledger.
func (in *injector) Describe(ctx context.Context, tx *memory.Tx, k engine.Key, h engine.Header) error {
	return in.call(ctx, "Describe", true, func() error { return in.Ledger.Describe(ctx, tx, k, h) })
}

// SetRebuild implements engine.Ledger.
func (in *injector) SetRebuild(ctx context.Context, tx *memory.Tx, k engine.Key, requested bool) error {
	return in.call(ctx, "SetRebuild", true, func() error { return in.Ledger.SetRebuild(ctx, tx, k, requested) })
}

// Refilter implements engine.Ledger.
func (in *injector) Refilter(ctx context.Context, tx *memory.Tx, k engine.Key, filter string, past bool) error {
	return in.call(ctx, "Refilter", true, func() error { return in.Ledger.Refilter(ctx, tx, k, filter, past) })
}

// Rewind implements engine.Ledger.
func (in *injector) Rewind(ctx context.Context, tx *memory.Tx, k engine.Key, to projection.Cursor) error {
	return in.call(ctx, "Rewind", true, func() error { return in.Ledger.Rewind(ctx, tx, k, to) })
}

// Rename implements engine.Ledger.
func (in *injector) Rename(ctx context.Context, tx *memory.Tx, old, name string) error {
	return in.call(ctx, "Rename", true, func() error { return in.Ledger.Rename(ctx, tx, old, name) })
}

// Now implements engine.Ledger.
func (in *injector) Now(ctx context.Context) (now int64, err error) {
	err = in.call(ctx, "Now", false, func() (err error) {
		now, err = in.Ledger.Now(ctx)
		return err
	})
	return now, err
}

// Due implements engine.Ledger.
func (in *injector) Due(ctx context.Context, k engine.Key, p part.Part, from engine.Timer, now int64, limit int) (due engine.Due, err error) {
	err = in.call(ctx, "Due", false, func() (err error) {
		due, err = in.Ledger.Due(ctx, k, p, from, now, limit)
		return err
	})
	return due, err
}

// Enrol implements engine.Ledger.
func (in *injector) Enrol(ctx context.Context, tx *memory.Tx, k engine.Key, timers []engine.Timer) error {
	return in.call(ctx, "Enrol", true, func() error { return in.Ledger.Enrol(ctx, tx, k, timers) })
}

// Settle implements engine.Ledger.
func (in *injector) Settle(ctx context.Context, tx *memory.Tx, k engine.Key, p part.Part, first, last engine.Timer) error {
	return in.call(ctx, "Settle", true, func() error { return in.Ledger.Settle(ctx, tx, k, p, first, last) })
}
