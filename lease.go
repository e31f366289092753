package es

import (
	"context"
	"time"
)

// DefaultLease is how long the leases of projections and relays last: the time without a sign of life after which another takes over.
const DefaultLease = 10 * time.Second

// A Lease says who works on something that one at a time should work on, such as a relay.
type Lease struct {
	Name   string
	Holder string
	Until  time.Time // by the clock of the database; UTC, in whole microseconds
	Note   string    // what the holder says of its work; for people and programs that watch
}

// Leases lets one of several processes work, and another take over when that one is not heard of. It spares them from getting in each other's way.
// Correctness must not rest on it: a holder that was paused does not know that its lease has run out.
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called from many goroutines.
type Leases interface {
	// AcquireLease takes a lease for a time, or renews it, unless somebody else has it, and returns it as it stands then: the caller has it
	// if the holder is his. What cannot be a lease (see [CheckLease]) makes an error that wraps [ErrInvalid].
	AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (Lease, error)

	// ReleaseLease gives a lease back, if the holder has it: it is gone then.
	ReleaseLease(ctx context.Context, name, holder string) error

	// ListLeases returns all leases, sorted by name byte by byte, those that have run out among them.
	ListLeases(ctx context.Context) ([]Lease, error)
}

// Checkpoints remembers how far readers of the log have come that keep their effects elsewhere.
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called from many goroutines.
type Checkpoints interface {
	// LoadCheckpoint returns the checkpoint with a name, or 0 if there is none.
	LoadCheckpoint(ctx context.Context, name string) (Position, error)

	// MoveCheckpoint moves a checkpoint from one position to another, which may be lower, and tells whether it was at the first.
	// After an error that is neither the context's nor wraps [ErrInvalid] it may have been moved: load it and look.
	// What cannot be a checkpoint (see [CheckCheckpoint]) makes an error that wraps ErrInvalid.
	MoveCheckpoint(ctx context.Context, name string, from, to Position) (moved bool, err error)
}

// CheckLease tells whether a lease can be asked for: name and holder are text of at most [MaxID] bytes, the note is text of at most
// [MaxMeta] bytes and may be empty, and the time is more than none. Those who implement [Leases] call it before anything else.
func CheckLease(name, holder string, d time.Duration, note string) error {
	if bad := badName(name, MaxID); bad != "" {
		return invalid("name of lease %.80q %s", name, bad)
	}
	if bad := badName(holder, MaxID); bad != "" {
		return invalid("lease %s: holder %.80q %s", name, holder, bad)
	}
	if d <= 0 {
		return invalid("lease %s: it is asked for %v: ask for a time that whoever works can renew it in, such as 10 seconds", name, d)
	}
	if len(note) > MaxMeta {
		return invalid("lease %s: a note of %d bytes: the limit is %d", name, len(note), MaxMeta)
	}
	if !isText(note) {
		return invalid("lease %s: note %.80q has a NUL byte or is not UTF-8: encode it as text", name, note)
	}
	return nil
}

// CheckCheckpoint tells whether a checkpoint can be moved: its name is text of at most [MaxID] bytes, and no position is below 0.
// Those who implement [Checkpoints] call it before anything else.
func CheckCheckpoint(name string, from, to Position) error {
	if bad := badName(name, MaxID); bad != "" {
		return invalid("name of checkpoint %.80q %s", name, bad)
	}
	if min(from, to) < 0 {
		return invalid("checkpoint %s: position %d: the beginning is 0", name, min(from, to))
	}
	return nil
}
