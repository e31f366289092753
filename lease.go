package es

import (
	"context"
	"time"
)

// A Lease says who works on something that one at a time should work on, such as a relay.
type Lease struct {
	Name   string
	Holder string
	Until  time.Time // by the clock of the database
	Note   string    // what the holder says of its work; for people and programs that watch
}

// Leases lets one of several processes work, and another take over when that one is not heard of. It spares them from getting in each other's way.
// Correctness must not rest on it: a holder that was paused does not know that its lease has run out.
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called from many goroutines.
type Leases interface {
	// AcquireLease takes a lease for a time, or renews it, unless somebody else has it, and returns it as it stands then: the caller has it
	// if the holder is his.
	AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (Lease, error)

	// ReleaseLease gives a lease back, if the holder has it.
	ReleaseLease(ctx context.Context, name, holder string) error

	// ListLeases returns all leases, sorted by name, those that have run out among them.
	ListLeases(ctx context.Context) ([]Lease, error)
}

// Checkpoints remembers how far readers of the log have come that keep their effects elsewhere.
// [Mem] and the stores of packages sqlite and postgres implement it. All methods may be called from many goroutines.
type Checkpoints interface {
	// LoadCheckpoint returns the checkpoint with a name, or 0 if there is none.
	LoadCheckpoint(ctx context.Context, name string) (Position, error)

	// MoveCheckpoint moves a checkpoint from one position to another, which may be lower, and tells whether it was at the first.
	MoveCheckpoint(ctx context.Context, name string, from, to Position) (moved bool, err error)
}
