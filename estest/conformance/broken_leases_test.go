package conformance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest/conformance"
)

const (
	firstHas     = "first caller holds the lease until it expires"
	timeAsked    = "lease lasts as long as requested"
	renewed      = "holder can renew a lease and change its note"
	runsOut      = "lease can be taken over only after it expires"
	givenBack    = "released lease is free at once"
	notGivenBack = "only the holder can release a lease"
	oneGetsIt    = "one caller wins a race for a free lease"
	oneTakesOver = "one caller wins a race for an expired lease"
	oneClock     = "leases follow one clock"
	listByName   = "ListLeases sorts by name and includes expired leases"
	leaseBytes   = "lease names are kept byte by byte"
	leaseObeys   = "leases obey the context"
	leaseIsNone  = "invalid lease is refused"
)

// faultyLeases are those of an es.Mem, with a defect.
type faultyLeases struct {
	*es.Mem
	onAcquire func(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error)
	onRelease func(ctx context.Context, name, holder string) error
	onList    func(ctx context.Context) ([]es.Lease, error)
}

func (f *faultyLeases) AcquireLease(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
	if f.onAcquire != nil {
		return f.onAcquire(ctx, name, holder, d, note)
	}
	return f.Mem.AcquireLease(ctx, name, holder, d, note)
}

func (f *faultyLeases) ReleaseLease(ctx context.Context, name, holder string) error {
	if f.onRelease != nil {
		return f.onRelease(ctx, name, holder)
	}
	return f.Mem.ReleaseLease(ctx, name, holder)
}

func (f *faultyLeases) ListLeases(ctx context.Context) ([]es.Lease, error) {
	if f.onList != nil {
		return f.onList(ctx)
	}
	return f.Mem.ListLeases(ctx)
}

func TestEveryDefectOfLeasesIsCaughtByItsClause(t *testing.T) {
	catch(t, slices.Concat(brokenAcquires(), brokenLeaseRaces(), brokenReleases(), brokenLists()), conformance.LeaseClauses(), conformance.Clause.TryLeases)
}

// brokenLeases makes a defect of stores that have a Mem as their database.
func brokenLeases(name, clause string, store func(m *es.Mem) *faultyLeases) defect[es.Leases] {
	return defect[es.Leases]{name: name, clause: clause, database: func() func() es.Leases {
		m := new(es.Mem)
		return func() es.Leases { return store(m) }
	}}
}

// asking changes what is asked of a lease.
func asking(do func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error)) func(*es.Mem) *faultyLeases {
	return func(m *es.Mem) *faultyLeases {
		return &faultyLeases{Mem: m, onAcquire: func(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
			return do(ctx, m, name, holder, d, note)
		}}
	}
}

// releasing changes how a lease is given back.
func releasing(do func(ctx context.Context, m *es.Mem, name, holder string) error) func(*es.Mem) *faultyLeases {
	return func(m *es.Mem) *faultyLeases {
		return &faultyLeases{Mem: m, onRelease: func(ctx context.Context, name, holder string) error { return do(ctx, m, name, holder) }}
	}
}

// listingLeases changes the list.
func listingLeases(change func(leases []es.Lease) []es.Lease) func(*es.Mem) *faultyLeases {
	return func(m *es.Mem) *faultyLeases {
		return &faultyLeases{Mem: m, onList: func(ctx context.Context) ([]es.Lease, error) {
			leases, err := m.ListLeases(ctx)
			return change(leases), err
		}}
	}
}

// lease finds a lease in a Mem, and tells whether somebody has it.
func lease(m *es.Mem, name string) (l es.Lease, held bool) {
	leases, err := m.ListLeases(context.Background())
	if err != nil {
		panic(err)
	}
	for _, l := range leases {
		if l.Name == name {
			return l, l.Until.After(time.Now())
		}
	}
	return es.Lease{}, false
}

func brokenAcquires() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("who asks is told that he has it", firstHas, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			l, err := m.AcquireLease(ctx, name, holder, d, note)
			l.Holder = holder
			return l, err
		})).noticedBy(oneGetsIt, oneTakesOver, runsOut),
		brokenLeases("whoever asks last has it", firstHas, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, found := lease(m, name); found && l.Holder != holder && ctx.Err() == nil && es.CheckLease(name, holder, d, note) == nil {
				_ = m.ReleaseLease(ctx, name, l.Holder)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(oneGetsIt, oneTakesOver, runsOut),
		brokenLeases("the time is taken for seconds", timeAsked, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if d >= time.Second {
				d /= 1000
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(renewed, runsOut, oneTakesOver),
		brokenLeases("a lease lasts a minute", timeAsked, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if d > time.Minute {
				d = time.Minute
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(renewed, runsOut, oneTakesOver),
		brokenLeases("a renewal adds to what is left", renewed, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); held && l.Holder == holder && d > 0 {
				d += time.Until(l.Until)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("a renewal keeps the note", renewed, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); held && l.Holder == holder {
				note = l.Note
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("whoever lost his lease may not ask again", renewed, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); holder != "" && l.Holder == holder && !held {
				return l, nil
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("a lease is taken a little before it runs out", runsOut, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); held && l.Holder != holder && time.Until(l.Until) < 30*time.Millisecond {
				_ = m.ReleaseLease(ctx, name, l.Holder)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("a lease never runs out", runsOut, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, _ := lease(m, name); l.Holder != "" && l.Holder != holder {
				return l, ctx.Err()
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(oneTakesOver).blocking(),
		brokenLeases("names are compared without regard to case", leaseBytes, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			asked := name
			if es.CheckLease(name, holder, d, note) == nil {
				asked = strings.ToLower(name)
			}
			l, err := m.AcquireLease(ctx, asked, holder, d, note)
			l.Name = name
			return l, err
		})).noticedBy(listByName),
		brokenLeases("contexts are not looked at", leaseObeys, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			return m.AcquireLease(context.WithoutCancel(ctx), name, holder, d, note)
		})),
		brokenLeases("no holder is a holder too", leaseIsNone, asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if holder == "" {
				return es.Lease{Name: name}, nil
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
	}
}

func brokenLeaseRaces() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("a free lease is looked for before the lock", oneGetsIt, func(m *es.Mem) *faultyLeases {
			return &faultyLeases{Mem: m, onAcquire: func(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
				l, _ := lease(m, name)
				if l.Holder == "" && ctx.Err() == nil && es.CheckLease(name, holder, d, note) == nil {
					window()
					if now, _ := lease(m, name); now.Holder != "" {
						_ = m.ReleaseLease(ctx, name, now.Holder)
					}
				}
				return m.AcquireLease(ctx, name, holder, d, note)
			}}
		}),
		brokenLeases("a lease that has run out is looked for before the lock", oneTakesOver, func(m *es.Mem) *faultyLeases {
			return &faultyLeases{Mem: m, onAcquire: func(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
				if l, held := lease(m, name); l.Holder != "" && !held && ctx.Err() == nil && es.CheckLease(name, holder, d, note) == nil {
					window()
					now, _ := lease(m, name)
					_ = m.ReleaseLease(ctx, name, now.Holder)
				}
				return m.AcquireLease(ctx, name, holder, d, note)
			}}
		}),
		{name: "each store goes by a clock of its own", clause: oneClock, database: func() func() es.Leases {
			m, stores := new(es.Mem), 0
			return func() es.Leases {
				ahead := time.Duration(stores) * time.Second
				stores++
				return asking(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
					if l, held := lease(m, name); held && l.Holder != holder && time.Until(l.Until) < ahead {
						_ = m.ReleaseLease(ctx, name, l.Holder)
					}
					if d > 0 {
						d += ahead
					}
					return m.AcquireLease(ctx, name, holder, d, note)
				})(m)
			}
		}, also: []string{runsOut}},
	}
}

func brokenReleases() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("a lease is not given back", givenBack, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			return ctx.Err()
		})).noticedBy(listByName, runsOut),
		brokenLeases("a lease that was given back runs out, and stays in the list", givenBack, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			if l, held := lease(m, name); !held || l.Holder != holder {
				return ctx.Err()
			}
			_, err := m.AcquireLease(ctx, name, holder, 1, "")
			return err
		})).noticedBy(listByName),
		brokenLeases("anybody gives a lease back", notGivenBack, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			l, _ := lease(m, name)
			return m.ReleaseLease(ctx, name, l.Holder)
		})),
		brokenLeases("giving back what one does not have is an error", notGivenBack, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			if l, _ := lease(m, name); l.Holder != holder && ctx.Err() == nil {
				return errors.New("no rows affected")
			}
			return m.ReleaseLease(ctx, name, holder)
		})),
	}
}

func brokenLists() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("leases that have run out are left out", listByName, listingLeases(func(leases []es.Lease) []es.Lease {
			return slices.DeleteFunc(leases, func(l es.Lease) bool { return !l.Until.After(time.Now()) })
		})).noticedBy(renewed),
		brokenLeases("leases are listed without regard to case", listByName, listingLeases(func(leases []es.Lease) []es.Lease {
			slices.SortStableFunc(leases, func(a, b es.Lease) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
			return leases
		})).noticedBy(leaseBytes),
		brokenLeases("notes are cut off", listByName, listingLeases(func(leases []es.Lease) []es.Lease {
			for i := range leases {
				leases[i].Note = leases[i].Note[:min(len(leases[i].Note), 1000)]
			}
			return leases
		})),
	}
}
