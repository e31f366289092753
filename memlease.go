package es

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// AcquireLease implements [Leases].
func (m *Mem) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (Lease, error) {
	if err := CheckLease(name, holder, d, note); err != nil {
		return Lease{}, err
	}
	if err := ctx.Err(); err != nil {
		return Lease{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now().UTC()
	l, found := m.leases[name]
	if !found || l.Holder == holder || !l.Until.After(now) {
		l = Lease{Name: name, Holder: holder, Until: now.Add(d).Truncate(time.Microsecond), Note: note}
		if m.leases == nil {
			m.leases = make(map[string]Lease)
		}
		m.leases[name] = l
	}
	return l, nil
}

// ReleaseLease implements [Leases].
func (m *Mem) ReleaseLease(ctx context.Context, name, holder string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[name].Holder == holder {
		delete(m.leases, name)
	}
	return nil
}

// ListLeases implements [Leases].
func (m *Mem) ListLeases(ctx context.Context) ([]Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	leases := slices.SortedFunc(maps.Values(m.leases), func(a, b Lease) int { return cmp.Compare(a.Name, b.Name) })
	return leases, ctx.Err()
}

// LoadCheckpoint implements [Checkpoints].
func (m *Mem) LoadCheckpoint(ctx context.Context, name string) (Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkpoints[name], ctx.Err()
}

// MoveCheckpoint implements [Checkpoints].
func (m *Mem) MoveCheckpoint(ctx context.Context, name string, from, to Position) (moved bool, err error) {
	if err := CheckCheckpoint(name, from, to); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.checkpoints[name] != from {
		return false, nil
	}
	if m.checkpoints == nil {
		m.checkpoints = make(map[string]Position)
	}
	m.checkpoints[name] = to
	return true, nil
}
