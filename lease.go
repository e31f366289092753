package es

import (
	"context"
	"time"
)

// Lease grants one holder exclusive work, such as a relay, for a limited time.
type Lease struct {
	Name   string
	Holder string
	Until  time.Time // by the clock of the database; UTC, whole microseconds
	Note   string    // what the holder says about its work, for operators and tools
}

// Leases let one of several processes work, and let another take over when the holder stops renewing.
// They reduce contention. Correctness must not depend on them: a paused holder does not notice that its lease has expired.
//
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called concurrently.
//
// Not for users to implement: it may gain methods.
type Leases interface {
	// AcquireLease acquires or renews a lease for d and returns the current lease.
	// The caller holds it if its Holder equals holder. An invalid lease is an error that wraps [ErrInvalid]; see [CheckLease].
	AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (Lease, error)

	// ReleaseLease deletes a lease if holder holds it.
	ReleaseLease(ctx context.Context, name, holder string) error

	// ListLeases returns all leases, including expired ones, sorted bytewise by name.
	ListLeases(ctx context.Context) ([]Lease, error)
}

// Checkpoints keep the positions of readers whose effects are outside the database.
//
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called concurrently.
//
// Not for users to implement: it may gain methods.
type Checkpoints interface {
	// LoadCheckpoint returns the checkpoint with a name, or 0 if there is none.
	LoadCheckpoint(ctx context.Context, name string) (Position, error)

	// MoveCheckpoint sets a checkpoint to the position to, which may be lower, if it is at from. It reports whether it has. An invalid checkpoint is an error that wraps [ErrInvalid]; see [CheckCheckpoint].
	// After any other error, except that of the context, the checkpoint may have moved: load it to find out.
	MoveCheckpoint(ctx context.Context, name string, from, to Position) (moved bool, err error)
}

// CheckLease reports what makes a lease invalid, or nil. Name and holder are text of 1 to [MaxID] bytes, the note is
// text of at most [MaxMeta] bytes, and the duration is positive. The error wraps [ErrInvalid].
// Implementations of [Leases] call it first.
func CheckLease(name, holder string, d time.Duration, note string) error {
	if bad := badName(name, MaxID); bad != "" {
		return invalid("lease name %.80q %s", name, bad)
	}
	if bad := badName(holder, MaxID); bad != "" {
		return invalid("lease %s: holder %.80q %s", name, holder, bad)
	}
	if d <= 0 {
		return invalid("lease %s: duration %v: must be positive", name, d)
	}
	if len(note) > MaxMeta {
		return invalid("lease %s: note has %d bytes: the limit is %d", name, len(note), MaxMeta)
	}
	if !isText(note) {
		return invalid("lease %s: note %.80q has a NUL byte or is not UTF-8: encode it as text", name, note)
	}
	return nil
}

// CheckCheckpoint reports what makes a checkpoint invalid, or nil. Its name is text of 1 to [MaxID] bytes, and its
// positions are not negative. The error wraps [ErrInvalid]. Implementations of [Checkpoints] call it first.
func CheckCheckpoint(name string, from, to Position) error {
	if bad := badName(name, MaxID); bad != "" {
		return invalid("checkpoint name %.80q %s", name, bad)
	}
	if min(from, to) < 0 {
		return invalid("checkpoint %s: position %d: must not be negative", name, min(from, to))
	}
	return nil
}
