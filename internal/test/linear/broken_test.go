package linear_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/thalo-go/es"
)

// The check must detect broken stores, or it is worth nothing. Calls are sequential, so the result does not depend on
// timing.
func TestABrokenStoreIsDetected(t *testing.T) {
	for name, broken := range map[string]func(es.Store) es.Store{
		"reads come from a cache":                         func(s es.Store) es.Store { return &stale{Store: s} },
		"an update is lost":                               func(s es.Store) es.Store { return overwriting{s} },
		"what was acknowledged is written later":          func(s es.Store) es.Store { return &late{Store: s} },
		"what was acknowledged is not written at times":   func(s es.Store) es.Store { return &losing{Store: s} },
		"what was written is said not to be":              func(s es.Store) es.Store { return &denying{Store: s} },
		"an append of unknown outcome is written twice":   func(s es.Store) es.Store { return &stammering{Store: s} },
		"a command with an identity takes effect again":   func(s es.Store) es.Store { return &forgetful{Store: s} },
		"nothing is wrong, and the check should say that": func(s es.Store) es.Store { return s },
	} {
		t.Run(name, func(t *testing.T) {
			store := broken(new(es.Mem))
			l := &load{services: []service{newLocal(store), newLocal(store)}, clients: 1, each: 500}
			for _, s := range l.services {
				s.(*local).registers.Retries, s.(*local).accounts.Retries = 3, 3
			}
			l.run(t.Context())
			evidence := filepath.Join(t.TempDir(), "history.html")
			err := l.registers.Check(evidence)
			if err == nil {
				err = l.accounts.Check(evidence)
			}
			switch sound := strings.HasPrefix(name, "nothing"); {
			case sound && err != nil:
				t.Error(err)
			case !sound && (err == nil || !strings.Contains(err.Error(), "no order of the")):
				t.Errorf("%v: want the store to be detected", err)
			}
			t.Log(err)
		})
	}
}

// stale reads each stream as it was at the last read, three times out of four, like a replica that lags.
type stale struct {
	es.Store
	mu    sync.Mutex
	reads int
	kept  map[es.Stream][]es.Record
}

func (s *stale) Read(ctx context.Context, stream es.Stream, after es.Version) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.reads++; s.kept == nil {
			s.kept = make(map[es.Stream][]es.Record)
		}
		if _, there := s.kept[stream]; !there || s.reads%4 == 0 {
			s.kept[stream] = nil
			for r, err := range s.Store.Read(ctx, stream, 0) {
				if err != nil {
					yield(r, err)
					return
				}
				s.kept[stream] = append(s.kept[stream], r)
			}
		}
		for _, r := range s.kept[stream] {
			if r.Version > after && !yield(r, nil) {
				return
			}
		}
	}
}

// overwriting does not compare versions.
type overwriting struct{ es.Store }

func (o overwriting) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	for i := range appends {
		appends[i].Expected = es.AnyVersion
	}
	return o.Store.Append(ctx, appends...)
}

// late acknowledges an append, but writes it when the next one arrives.
type late struct {
	es.Store
	mu      sync.Mutex
	pending []es.Append
}

func (l *late) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil {
		if _, err := l.Store.Append(ctx, l.pending...); err != nil {
			return 0, err
		}
	}
	l.pending = nil
	for _, a := range appends {
		a.Expected = es.AnyVersion
		l.pending = append(l.pending, a)
	}
	return 1, nil
}

// losing acknowledges every tenth append without writing it.
type losing struct {
	es.Store
	n int
}

func (l *losing) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	if l.n++; l.n%10 == 0 && len(appends[0].Events) > 0 {
		return 1, nil
	}
	return l.Store.Append(ctx, appends...)
}

// denying writes every tenth append but reports that nothing was written.
type denying struct {
	es.Store
	n int
}

func (d *denying) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	position, err := d.Store.Append(ctx, appends...)
	if d.n++; d.n%10 == 0 && err == nil {
		return 0, errors.New("denying: nothing was written")
	}
	return position, err
}

// stammering repeats an append whose outcome is unknown.
type stammering struct {
	es.Store
	n int
}

func (s *stammering) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	position, err := s.Store.Append(ctx, appends...)
	if s.n++; s.n%10 == 0 && err == nil && len(appends[0].Events) > 0 {
		for i := range appends {
			appends[i].Expected, appends[i].Command = es.AnyVersion, ""
		}
		_, err = s.Store.Append(ctx, appends...)
	}
	return position, err
}

// forgetful accepts a command as often as it is sent, and sometimes reports an unknown outcome.
type forgetful struct {
	es.Store
	n int
}

func (f *forgetful) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	once := false
	for i := range appends {
		once = once || appends[i].Command != ""
		appends[i].Command = ""
	}
	position, err := f.Store.Append(ctx, appends...)
	if once && err == nil {
		if f.n++; f.n%4 == 0 {
			return 0, fmt.Errorf("forgetful: %w", es.ErrUnknownOutcome)
		}
	}
	return position, err
}
