package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/growth"
)

// newGrowth returns the growth of the log. It is polled while calls wait, except where no other process can write.
func (s *Store) newGrowth(every time.Duration) *growth.Growth {
	if s.read == s.write && !s.readOnly {
		return growth.New(nil)
	}
	return growth.New(func() { s.watch(every) })
}

// Changed implements [es.Log]. Appends of this store wake it at once, those of other processes within [Config.PollInterval].
// Each poll takes about 10 µs of one CPU, however many callers wait.
func (s *Store) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	before := s.history.view()
	for {
		v, head, err := s.end(ctx)
		if err != nil {
			return 0, s.within(ctx, readHead, err)
		}
		s.growth.Note(v.seen(head), nil)
		if common, rewound := s.history.rewound(before.rewinds); rewound && after > common {
			head = min(head, common) // the caller has not read what is there now
		}
		switch {
		case head > after:
			return head, nil
		case head < after:
			return 0, fmt.Errorf("sqlite: %w", &es.AheadError{After: after, Head: head})
		}
		head, err = s.growth.Wait(ctx, after, v.rewinds)
		if !errors.Is(err, es.ErrRewound) { // a rewound log is looked at again
			return head, s.within(ctx, "wait for records", err)
		}
	}
}

// watch polls the head of the log while calls wait.
func (s *Store) watch(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.growth.Context().Done():
			return
		}
		if _, must := s.growth.Leave(true); must {
			return
		}
		v, head, err := s.end(context.Background())
		s.growth.Note(v.seen(head), err)
	}
}

// seen returns what a view of the history with this head says of the growth of the log.
func (v view) seen(head es.Position) growth.Seen { return growth.Seen{Head: head, Rewinds: v.rewinds} }

const readHead = "head of the log"

// end returns the position of the last record of the log, and the view of the history to which it belongs. It detects whether the log was rewound.
func (s *Store) end(ctx context.Context) (view, es.Position, error) {
	if err := s.files.check(); err != nil {
		return view{}, 0, err
	}
	v := s.history.view()
	var last mark
	var same bool
	err := s.row(ctx, selectTop, anys(v.top.args()), &last.position, &last.time, &last.stream.Kind, &last.stream.ID, &last.version, &same)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return v, 0, err
	}
	if same || v.top == (mark{}) {
		s.history.saw(v, last)
		return v, last.position, nil
	}
	v, err = s.history.rewind(v, last, func(m mark) (found bool, err error) {
		err = s.row(ctx, selectMark, anys(m.args()), &found)
		return found, err
	})
	return v, last.position, err
}
