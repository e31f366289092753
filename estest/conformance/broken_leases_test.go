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
	firstHolds   = "first caller holds the lease until it expires"
	timeAsked    = "lease lasts as long as requested"
	renewed      = "holder can renew a lease and change its note"
	expires      = "lease can be taken over only after it expires"
	released     = "released lease is free at once"
	notReleased  = "only the holder can release a lease"
	oneGetsIt    = "one caller wins a race for a free lease"
	oneTakesOver = "one caller wins a race for an expired lease"
	oneClock     = "leases follow one clock"
	listByName   = "ListLeases sorts by name and includes expired leases"
	leaseBytes   = "lease names are kept byte by byte"
	leaseObeys   = "leases obey the context"
	leaseInvalid = "invalid lease is refused"
)

// faultyLeases is an es.Mem with a defect in its leases.
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

// brokenLeases returns a defect of stores whose database is a Mem.
func brokenLeases(name, clause string, store func(m *es.Mem) *faultyLeases) defect[es.Leases] {
	return defect[es.Leases]{name: name, clause: clause, database: func() func() es.Leases {
		m := new(es.Mem)
		return func() es.Leases { return store(m) }
	}}
}

// acquiring changes AcquireLease.
func acquiring(do func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error)) func(*es.Mem) *faultyLeases {
	return func(m *es.Mem) *faultyLeases {
		return &faultyLeases{Mem: m, onAcquire: func(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
			return do(ctx, m, name, holder, d, note)
		}}
	}
}

// releasing changes ReleaseLease.
func releasing(do func(ctx context.Context, m *es.Mem, name, holder string) error) func(*es.Mem) *faultyLeases {
	return func(m *es.Mem) *faultyLeases {
		return &faultyLeases{Mem: m, onRelease: func(ctx context.Context, name, holder string) error { return do(ctx, m, name, holder) }}
	}
}

// listingLeases changes the result of ListLeases.
func listingLeases(change func(leases []es.Lease) []es.Lease) func(*es.Mem) *faultyLeases {
	return func(m *es.Mem) *faultyLeases {
		return &faultyLeases{Mem: m, onList: func(ctx context.Context) ([]es.Lease, error) {
			leases, err := m.ListLeases(ctx)
			return change(leases), err
		}}
	}
}

// lease returns a lease and reports whether it is held.
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
		brokenLeases("every caller is told that it has the lease", firstHolds, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			l, err := m.AcquireLease(ctx, name, holder, d, note)
			l.Holder = holder
			return l, err
		})).noticedBy(oneGetsIt, oneTakesOver, expires),
		brokenLeases("the last caller gets the lease", firstHolds, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, found := lease(m, name); found && l.Holder != holder && ctx.Err() == nil && es.CheckLease(name, holder, d, note) == nil {
				_ = m.ReleaseLease(ctx, name, l.Holder)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(oneGetsIt, oneTakesOver, expires),
		brokenLeases("the duration has the wrong unit", timeAsked, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if d >= time.Second {
				d /= 1000
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(renewed, expires, oneTakesOver),
		brokenLeases("a lease lasts at most a minute", timeAsked, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if d > time.Minute {
				d = time.Minute
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(renewed, expires, oneTakesOver),
		brokenLeases("a renewal adds to the remaining time", renewed, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); held && l.Holder == holder && d > 0 {
				d += time.Until(l.Until)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("a renewal keeps the note", renewed, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); held && l.Holder == holder {
				note = l.Note
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("an expired lease cannot be renewed", renewed, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); holder != "" && l.Holder == holder && !held {
				return l, nil
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("a lease is taken over just before it expires", expires, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, held := lease(m, name); held && l.Holder != holder && time.Until(l.Until) < 30*time.Millisecond {
				_ = m.ReleaseLease(ctx, name, l.Holder)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
		brokenLeases("a lease never expires", expires, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if l, _ := lease(m, name); l.Holder != "" && l.Holder != holder {
				return l, ended(ctx)
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})).noticedBy(oneTakesOver).blocking(),
		brokenLeases("names ignore case", leaseBytes, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			folded := name
			if es.CheckLease(name, holder, d, note) == nil {
				folded = strings.ToLower(name)
			}
			l, err := m.AcquireLease(ctx, folded, holder, d, note)
			l.Name = name
			return l, err
		})).noticedBy(listByName),
		brokenLeases("contexts are ignored", leaseObeys, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			return m.AcquireLease(context.WithoutCancel(ctx), name, holder, d, note)
		})),
		brokenLeases("an empty holder is accepted", leaseInvalid, acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
			if holder == "" {
				return es.Lease{Name: name}, nil
			}
			return m.AcquireLease(ctx, name, holder, d, note)
		})),
	}
}

func brokenLeaseRaces() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("whether a lease is free is checked before the lock", oneGetsIt, func(m *es.Mem) *faultyLeases {
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
		brokenLeases("whether a lease has expired is checked before the lock", oneTakesOver, func(m *es.Mem) *faultyLeases {
			return &faultyLeases{Mem: m, onAcquire: func(ctx context.Context, name, holder string, d time.Duration, note string) (es.Lease, error) {
				if l, held := lease(m, name); l.Holder != "" && !held && ctx.Err() == nil && es.CheckLease(name, holder, d, note) == nil {
					window()
					now, _ := lease(m, name)
					_ = m.ReleaseLease(ctx, name, now.Holder)
				}
				return m.AcquireLease(ctx, name, holder, d, note)
			}}
		}),
		{name: "each store uses its own clock", clause: oneClock, database: func() func() es.Leases {
			m, stores := new(es.Mem), 0
			return func() es.Leases {
				ahead := time.Duration(stores) * time.Second
				stores++
				return acquiring(func(ctx context.Context, m *es.Mem, name, holder string, d time.Duration, note string) (es.Lease, error) {
					if l, held := lease(m, name); held && l.Holder != holder && time.Until(l.Until) < ahead {
						_ = m.ReleaseLease(ctx, name, l.Holder)
					}
					if d > 0 {
						d += ahead
					}
					return m.AcquireLease(ctx, name, holder, d, note)
				})(m)
			}
		}, also: []string{expires}},
	}
}

func brokenReleases() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("ReleaseLease does nothing", released, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			return ended(ctx)
		})).noticedBy(listByName, expires),
		brokenLeases("a released lease expires and stays in the list", released, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			if l, held := lease(m, name); !held || l.Holder != holder {
				return ended(ctx)
			}
			_, err := m.AcquireLease(ctx, name, holder, 1, "")
			return err
		})).noticedBy(listByName),
		brokenLeases("any caller can release a lease", notReleased, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			l, _ := lease(m, name)
			return m.ReleaseLease(ctx, name, l.Holder)
		})),
		brokenLeases("releasing a lease of another holder is an error", notReleased, releasing(func(ctx context.Context, m *es.Mem, name, holder string) error {
			if l, _ := lease(m, name); l.Holder != holder && ctx.Err() == nil {
				return errors.New("no rows affected")
			}
			return m.ReleaseLease(ctx, name, holder)
		})),
	}
}

func brokenLists() []defect[es.Leases] {
	return []defect[es.Leases]{
		brokenLeases("expired leases are not listed", listByName, listingLeases(func(leases []es.Lease) []es.Lease {
			return slices.DeleteFunc(leases, func(l es.Lease) bool { return !l.Until.After(time.Now()) })
		})).noticedBy(renewed),
		brokenLeases("leases are sorted without regard to case", listByName, listingLeases(func(leases []es.Lease) []es.Lease {
			slices.SortStableFunc(leases, func(a, b es.Lease) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
			return leases
		})).noticedBy(leaseBytes),
		brokenLeases("notes are truncated", listByName, listingLeases(func(leases []es.Lease) []es.Lease {
			for i := range leases {
				leases[i].Note = leases[i].Note[:min(len(leases[i].Note), 1000)]
			}
			return leases
		})),
	}
}
