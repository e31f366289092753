package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// unknownError reports a record that the program cannot handle, because it does not know an event type. That is not the record's fault:
// another worker, of a newer release, can handle it.
type unknownError struct {
	eventType string
	record    es.Record
	err       error
}

func (u *unknownError) Error() string {
	return fmt.Sprintf("%s, at position %d, waits for a worker that knows event type %q: %v", u.record.ID(), u.record.Position, u.eventType, u.err)
}

func (u *unknownError) Unwrap() error { return u.err }

// unknownType returns the event type that a handler does not know, if that is why it failed. It excludes events that a command of the
// handler could not encode, because no release has stored them.
func unknownType(f *handlerError) (eventType string, unknown bool) {
	var encoding interface{ Encoding() bool }
	if u, ok := errors.AsType[*es.UnknownEventError](f.error); ok && !errors.As(f.error, &encoding) {
		return clean(u.Type), true
	}
	return "", false
}

// unknown applies the records of a piece before the one whose type the handler does not know. If there are none, it returns an unknownError.
func (s *shardWorker[Tx]) unknown(ctx context.Context, p piece, f *handlerError, eventType string) error {
	i := slices.IndexFunc(p.records, func(r es.Record) bool { return r.Type == eventType && !s.isBlocked(r) })
	switch {
	case i > 0:
		return s.apply(ctx, p.part(0, i))
	case i < 0 && len(s.unblocked(p.records)) > 1: // the handler has met it elsewhere, such as in a stream that it has loaded
		return s.search(ctx, p, f)
	}
	return &unknownError{eventType, s.unblocked(p.records)[0], f.error}
}

// letGo lets go of the shard whose next record has a type that this program does not know. If OnError is Stop, or with Once, and no other
// worker can handle it, it returns an error that ends the run.
func (s *shardWorker[Tx]) letGo(ctx context.Context, u *unknownError) error {
	s.task.log.Warn("event type not known: waiting for a worker that knows it", "type", u.eventType, "record", u.record.ID(), "shard", s.shard, "err", u.err)
	s.task.lack(u.eventType)
	s.recordError(ctx, u)
	err := s.engine.ledger.Need(ctx, s.key, s.row, u.eventType)
	if err == nil && (s.task.onError == es.Stop || s.task.once) {
		var able bool
		if able, err = s.task.othersKnow(ctx, u.eventType); err == nil && !able {
			return &projection.Error{Name: s.key.Name, Version: s.key.Version, Record: u.record, Err: u.err}
		}
	}
	if err == nil {
		err = s.engine.ledger.Release(ctx, s.key, s.row)
	}
	s.engine.changed.notify()
	return s.unlessPassing(err)
}

// lack notes an event type that this program does not know.
func (t *task[Tx]) lack(eventType string) {
	t.lacking.Lock()
	defer t.lacking.Unlock()
	if !slices.Contains(t.lacked, eventType) {
		t.lacked = append(t.lacked, eventType)
	}
}

func (t *task[Tx]) lacks() []string {
	t.lacking.Lock()
	defer t.lacking.Unlock()
	return slices.Clone(t.lacked)
}

// othersKnow reports whether another live worker may know an event type.
func (t *task[Tx]) othersKnow(ctx context.Context, eventType string) (bool, error) {
	lacks, err := t.engine.ledger.Lacks(ctx, t.key)
	delete(lacks, t.worker)
	for _, types := range lacks {
		if !slices.Contains(types, eventType) {
			return true, err
		}
	}
	return false, err
}

// shares returns how many shards this worker should hold: of those that every worker can handle, under the name "", and for each type that
// some worker does not know, of those that need it. It removes from the shards what every worker knows by now.
func (t *task[Tx]) shares(ctx context.Context, seen Overview) (map[string]int, error) {
	shares := make(map[string]int, 1)
	var lacks map[string][]string
	if slices.ContainsFunc(seen.Shards, func(s Shard) bool { return s.Needs != "" }) {
		var err error
		if lacks, err = t.engine.ledger.Lacks(ctx, t.key); err != nil {
			return nil, err
		}
		lacks[t.worker] = t.lacks()
	}
	for i := range seen.Shards {
		s := &seen.Shards[i]
		if s.Needs != "" && lackedBy(lacks, s.Needs) == 0 {
			if w := t.shardWorkers[s.Name]; w != nil && w.claim.Load() == s.Claim {
				if err := t.engine.ledger.Need(ctx, t.key, *s, ""); err != nil {
					return nil, err
				}
			}
			s.Needs = ""
		}
		shares[s.Needs]++
	}
	for needs, shards := range shares {
		able := seen.Workers - lackedBy(lacks, needs)
		if slices.Contains(lacks[t.worker], needs) {
			shares[needs] = 0
		} else {
			shares[needs] = (shards + able - 1) / max(able, 1)
		}
	}
	return shares, nil
}

// lackedBy returns the number of workers that do not know an event type.
func lackedBy(lacks map[string][]string, eventType string) (n int) {
	for _, types := range lacks {
		if slices.Contains(types, eventType) {
			n++
		}
	}
	return n
}
