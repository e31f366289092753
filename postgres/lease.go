package postgres

import (
	"context"
	"time"

	"github.com/thalo-go/es"
)

// AcquireLease implements [es.Leases]. It uses the server's clock.
func (s *Store) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
	if err := es.CheckLease(name, holder, d, note); err != nil {
		return es.Lease{}, err
	}
	micros := max(d.Microseconds(), 1)
	for {
		var l *es.Lease
		read := func(row [][]byte) error {
			l = lease(name, row)
			return nil
		}
		err := s.once(ctx, s.runner(), s.statements.acquireLease, [][]byte{[]byte(name), []byte(holder), int8Param(micros), []byte(note)}, read)
		if err == nil && l == nil { // another holder has it
			err = s.once(ctx, s.each, s.statements.loadLease, [][]byte{[]byte(name)}, read)
		}
		if err != nil {
			return es.Lease{}, within(ctx, "lease "+name, err)
		}
		if l != nil { // otherwise it expired or was released in between
			return *l, nil
		}
	}
}

func lease(name string, row [][]byte) *es.Lease {
	return &es.Lease{Name: name, Holder: string(row[0]), Until: getTime(row[1]), Note: string(row[2])}
}

// ReleaseLease implements [es.Leases].
func (s *Store) ReleaseLease(ctx context.Context, name, holder string) error {
	if es.CheckLease(name, holder, 1, "") != nil {
		return ctx.Err() // it does not exist, and the server would refuse the name
	}
	return within(ctx, "lease "+name, s.once(ctx, s.runner(), s.statements.releaseLease, [][]byte{[]byte(name), []byte(holder)}, nil))
}

// ListLeases implements [es.Leases].
func (s *Store) ListLeases(ctx context.Context) (leases []es.Lease, err error) {
	err = s.once(ctx, s.each, s.statements.listLeases, nil, func(row [][]byte) error {
		leases = append(leases, *lease(string(row[3]), row))
		return nil
	})
	return leases, within(ctx, "leases", err)
}

// LoadCheckpoint implements [es.Checkpoints].
func (s *Store) LoadCheckpoint(ctx context.Context, name string) (position es.Position, err error) {
	if es.CheckCheckpoint(name, 0, 0) != nil {
		return 0, ctx.Err() // it does not exist, and the server would refuse the name
	}
	err = s.once(ctx, s.each, s.statements.loadCheckpoint, [][]byte{[]byte(name)}, func(row [][]byte) error {
		position = es.Position(getInt8(row[0]))
		return nil
	})
	return position, within(ctx, "checkpoint "+name, err)
}

// MoveCheckpoint implements [es.Checkpoints].
func (s *Store) MoveCheckpoint(ctx context.Context, name string, from, to es.Position) (moved bool, err error) {
	if err := es.CheckCheckpoint(name, from, to); err != nil {
		return false, err
	}
	stmt, params := s.statements.moveCheckpoint, [][]byte{[]byte(name), int8Param(int64(to)), int8Param(int64(from))}
	if from == 0 {
		stmt, params = s.statements.firstCheckpoint, params[:2]
	}
	err = s.once(ctx, s.runner(), stmt, params, func([][]byte) error {
		moved = true
		return nil
	})
	return moved && err == nil, within(ctx, "checkpoint "+name, err)
}
