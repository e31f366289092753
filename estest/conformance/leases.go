package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/thalo-go/es"
)

// leaseClauses test leases.
func leaseClauses() []clause {
	return []clause{
		{"first caller holds the lease until it expires",
			"AcquireLease returns the lease as it is stored: the second caller gets the first caller's lease. If it returned what was requested, both callers would work.",
			leaseOfTheFirst},
		{"lease lasts as long as requested",
			"Until is the database's time at the call plus the requested duration. If the unit is wrong, a dead holder blocks the others for days, or a live one loses the lease between two renewals.",
			leaseTime},
		{"holder can renew a lease and change its note",
			"A renewal sets the expiry, to an earlier time as well, and the note. It also works after the lease has expired, as long as no other caller has taken it.",
			leaseRenewed},
		{"lease can be taken over only after it expires",
			"The store reads the clock when it grants the lease, not when the call starts to wait. Otherwise two holders work at the same time, or an expired lease is never taken over.",
			leaseExpires},
		{"released lease is free at once",
			"A program that shuts down releases its lease so that the next one starts without waiting. A released lease is not listed.",
			leaseReleased},
		{"only the holder can release a lease",
			"A holder that was paused and has lost its lease still releases it when it ends. That is not an error, and it must not release the lease of the new holder.",
			leaseNotReleased},
		{"one caller wins a race for a free lease",
			"Several processes may start at the same time. A store that checks before it locks gives the lease to each of them.",
			leaseRace},
		{"one caller wins a race for an expired lease",
			"When a holder dies, all waiting processes try at once. A store that checks before it locks gives the lease to each of them.",
			leaseTakeover},
		{"leases follow one clock",
			"The clocks of two machines differ by seconds. If one machine's clock sets the expiry and another's judges it, leases expire although their holder renews them in time.",
			leaseClock},
		{"ListLeases sorts by name and includes expired leases",
			"The list is for operators. An expired lease is what they look for: its work has no worker.",
			leaseList},
		{"lease names are kept byte by byte",
			"If the database treats two names as equal, two kinds of work share a lease and one of them is never done.",
			leaseNames},
		{"leases obey the context",
			"A caller that has given up gets the context's error and does not wait for a database that does not answer.",
			leaseContext},
		{"invalid lease is refused",
			"es.CheckLease defines what is valid, and the error wraps es.ErrInvalid. A lease without a holder or a duration does not keep two processes from working at once.",
			leaseRefused},
	}
}

// acquire calls AcquireLease, which must succeed.
func (t *trial) acquire(s es.Leases, name, holder string, d time.Duration, note string) es.Lease {
	l, err := s.AcquireLease(t.ctx, name, holder, d, note)
	if err != nil {
		t.Fatalf("AcquireLease(%q, %q, %v) returned %v", name, holder, d, err)
	}
	if l.Name != name {
		t.Fatalf("AcquireLease(%q, %q, %v) returned the lease %q", name, holder, d, l.Name)
	}
	return l
}

func (t *trial) release(s es.Leases, name, holder string) {
	if err := s.ReleaseLease(t.ctx, name, holder); err != nil {
		t.Fatalf("ReleaseLease(%q, %q) returned %v", name, holder, err)
	}
}

func (t *trial) listed(s es.Leases) []es.Lease {
	leases, err := s.ListLeases(t.ctx)
	if err != nil {
		t.Fatalf("ListLeases returned %v", err)
	}
	return leases
}

// past waits until the database's clock is past a time. It reads the clock from leases that it acquires.
func (t *trial) past(s es.Leases, until time.Time) {
	for i := 0; ; i++ {
		name := fmt.Sprint("clock ", i)
		begun := t.acquire(s, name, "a", time.Hour, "").Until.Add(-time.Hour)
		t.release(s, name, "a")
		if begun.After(until) || begun.Before(until.Add(-time.Minute)) { // in the second case leases do not last as long as requested
			return
		}
	}
}

// takeOver calls AcquireLease until the previous lease has expired, and returns the new one.
func (t *trial) takeOver(s es.Leases, name, holder string, d time.Duration) es.Lease {
	for {
		if l := t.acquire(s, name, holder, d, ""); l.Holder == holder {
			return l
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.ctx.Done():
			t.Fatalf("the lease %q has not expired within %v", name, t.timeout)
		}
	}
}

func leaseOfTheFirst(t *trial) {
	s := t.leases()
	first := t.acquire(s, "relay", "a", time.Hour, "at work")
	if first.Holder != "a" || first.Note != "at work" {
		t.Fatalf("a, the first caller, got %+v", first)
	}
	if u := first.Until; u.Location() != time.UTC || !u.Equal(u.Truncate(time.Microsecond)) {
		t.Errorf("the lease is until %v: want UTC and whole microseconds", u)
	}
	t.equal("what b gets while a has the lease", t.acquire(s, "relay", "b", 2*time.Hour, "mine"), first)
	t.equal("the list", t.listed(s), []es.Lease{first})
	if other := t.acquire(s, "another", "b", time.Hour, ""); other.Holder != "b" {
		t.Errorf("b got %+v: want another lease to be free", other)
	}
}

func leaseTime(t *trial) {
	s := t.leases()
	short := t.acquire(s, "short", "a", time.Hour, "")
	long := t.acquire(s, "long", "a", 24*time.Hour, "")
	again := t.acquire(s, "again", "a", time.Hour, "")
	if d := long.Until.Sub(short.Until); d < 23*time.Hour || d > 24*time.Hour {
		t.Errorf("leases of 1 h and 24 h, taken one after the other, end %v apart", d)
	}
	if d := again.Until.Sub(short.Until); d < 0 || d > time.Hour {
		t.Errorf("leases of 1 h each, taken one after the other, end %v apart", d)
	}
	// Operators compare the time with their own clock, which may differ from the database's, but not by much.
	if d := time.Until(again.Until); d < time.Minute || d > 2*time.Hour {
		t.Errorf("a lease of 1 h ends in %v by the clock of this process", d)
	}
}

func leaseRenewed(t *trial) {
	s := t.leases()
	first := t.acquire(s, "relay", "a", time.Hour, "one")
	second := t.acquire(s, "relay", "a", 2*time.Hour, "two")
	if second.Holder != "a" || second.Note != "two" || second.Until.Sub(first.Until) < time.Hour {
		t.Errorf("%+v, renewed for twice the time, is %+v", first, second)
	}
	third := t.acquire(s, "relay", "a", time.Millisecond, "")
	if third.Holder != "a" || third.Note != "" || !third.Until.Before(first.Until) {
		t.Errorf("%+v, renewed for a millisecond, is %+v", second, third)
	}
	t.equal("the list", t.listed(s), []es.Lease{third})
	t.past(s, third.Until)
	if fourth := t.acquire(s, "relay", "a", time.Hour, "four"); fourth.Holder != "a" || fourth.Note != "four" || !fourth.Until.After(third.Until) {
		t.Errorf("%+v, renewed after it had expired, is %+v", third, fourth)
	}
}

func leaseExpires(t *trial) {
	a, b := t.leases(), t.leases()
	for range 5 {
		held := t.acquire(a, "relay", "a", 40*time.Millisecond, "")
		if held.Holder != "a" {
			t.Fatalf("a got %+v", held)
		}
		taken := t.takeOver(b, "relay", "b", time.Hour)
		if begun := taken.Until.Add(-time.Hour); begun.Before(held.Until) {
			t.Errorf("b got the lease at %v, but a had it until %v", begun, held.Until)
		}
		if lost := t.acquire(a, "relay", "a", time.Hour, ""); lost.Holder != "b" {
			t.Errorf("a, which lost the lease to b, got %+v", lost)
		}
		t.release(b, "relay", "b")
	}
}

func leaseReleased(t *trial) {
	s := t.leases()
	t.acquire(s, "relay", "a", time.Hour, "")
	t.release(s, "relay", "a")
	if leases := t.listed(s); len(leases) > 0 {
		t.Errorf("the list has %+v, which was released", leases)
	}
	if l := t.acquire(s, "relay", "b", time.Hour, ""); l.Holder != "b" {
		t.Errorf("b got %+v, which a had released", l)
	}
}

func leaseNotReleased(t *trial) {
	s := t.leases()
	held := t.acquire(s, "relay", "b", time.Hour, "at work")
	t.release(s, "relay", "a")
	t.release(s, "relay", "B")
	t.release(s, "another", "b")
	t.equal("the list, after ReleaseLease by callers without a lease", t.listed(s), []es.Lease{held})
}

func leaseRace(t *trial) {
	stores := []es.Leases{t.leases(), t.leases(), t.leases()}
	for round := range 5 {
		t.raceForLease(stores, fmt.Sprint("round ", round))
	}
}

func leaseTakeover(t *trial) {
	stores := []es.Leases{t.leases(), t.leases(), t.leases()}
	for round := range 5 {
		name := fmt.Sprint("round ", round)
		dead := t.acquire(stores[0], name, "dead", time.Millisecond, "")
		t.past(stores[0], dead.Until)
		t.raceForLease(stores, name)
	}
}

// raceForLease calls AcquireLease concurrently. One caller must get the lease, and all must learn which.
func (t *trial) raceForLease(stores []es.Leases, name string) {
	given := make([]es.Lease, 12)
	t.race(len(given), func(i int) {
		given[i] = t.acquire(stores[i%len(stores)], name, fmt.Sprint(i), time.Hour, fmt.Sprint("note of ", i))
	})
	leases := t.listed(stores[0])
	i := slices.IndexFunc(leases, func(l es.Lease) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("after %d concurrent calls no caller has the lease %q", len(given), name)
	}
	for n, l := range given {
		if l != leases[i] {
			t.Fatalf("of %d concurrent calls, call %d returned %+v, but the lease is %+v", len(given), n, l, leases[i])
		}
	}
	if l := leases[i]; l.Note != "note of "+l.Holder {
		t.Errorf("the lease is %+v: want holder and note of the same call", l)
	}
}

func leaseClock(t *trial) {
	stores := []es.Leases{t.leases(), t.leases(), t.leases()}
	last := es.Lease{}
	for i := range 12 {
		n := i % len(stores)
		l := t.acquire(stores[n], fmt.Sprint("lease ", i), "a", time.Hour, "")
		if l.Until.Before(last.Until) {
			t.Fatalf("a lease of 1 h from store %d ends at %v, before one acquired earlier from another store, at %v", n, l.Until, last.Until)
		}
		last = l
	}
}

func leaseList(t *trial) {
	s := t.leases()
	if leases := t.listed(s); len(leases) > 0 {
		t.Errorf("a fresh database has the leases %+v", leases)
	}
	want := []es.Lease{
		t.acquire(s, "b", "x", time.Hour, "of b"),
		t.acquire(s, "c", "y", time.Millisecond, ""),
		t.acquire(s, "B", "z", time.Hour, strings.Repeat("n", es.MaxMeta)),
		t.acquire(s, "a", "x", 2*time.Hour, "{\"position\": 5}"),
	}
	t.past(s, want[1].Until)
	slices.SortFunc(want, func(a, b es.Lease) int { return strings.Compare(a.Name, b.Name) })
	t.equal("the list", t.listed(t.leases()), want)
}

func leaseNames(t *trial) {
	s := t.leases()
	var want []es.Lease
	for i, name := range append(oddNames(), strings.Repeat("n", es.MaxID)) {
		l := t.acquire(s, name, name, time.Hour, name)
		if l.Holder != name || l.Note != name {
			t.Fatalf("the first caller for the lease %+q (number %d) got %+v", name, i, l)
		}
		want = append(want, l)
	}
	slices.SortFunc(want, func(a, b es.Lease) int { return strings.Compare(a.Name, b.Name) })
	t.equal("the list", t.listed(s), want)
}

func leaseContext(t *trial) {
	s := t.leases()
	t.blames("AcquireLease", func(ctx context.Context) error { return second(s.AcquireLease(ctx, "relay", "a", time.Hour, "")) })
	t.blames("ReleaseLease", func(ctx context.Context) error { return s.ReleaseLease(ctx, "relay", "a") })
	t.blames("ListLeases", func(ctx context.Context) error { return second(s.ListLeases(ctx)) })
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	for call, err := range map[string]error{
		"AcquireLease": second(s.AcquireLease(ctx, "relay", "a", time.Hour, "")),
		"ReleaseLease": s.ReleaseLease(ctx, "relay", "a"),
		"ListLeases":   second(s.ListLeases(ctx)),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context returned %v: want an error that wraps context.Canceled", call, err)
		}
	}
	if leases := t.listed(s); len(leases) > 0 {
		t.Errorf("a refused call created %+v", leases)
	}
}

func second[T any](_ T, err error) error { return err }

func leaseRefused(t *trial) {
	s := t.leases()
	for _, bad := range []struct {
		name, holder string
		d            time.Duration
		note         string
	}{
		{"", "a", time.Hour, ""}, {"a\x00b", "a", time.Hour, ""}, {"a\xff", "a", time.Hour, ""}, {strings.Repeat("n", es.MaxID+1), "a", time.Hour, ""},
		{"relay", "", time.Hour, ""}, {"relay", "a\x00b", time.Hour, ""}, {"relay", "\xff", time.Hour, ""}, {"relay", strings.Repeat("n", es.MaxID+1), time.Hour, ""},
		{"relay", "a", 0, ""}, {"relay", "a", -time.Second, ""},
		{"relay", "a", time.Hour, "a\x00b"}, {"relay", "a", time.Hour, "\xff"}, {"relay", "a", time.Hour, strings.Repeat("n", es.MaxMeta+1)},
	} {
		if _, err := s.AcquireLease(t.ctx, bad.name, bad.holder, bad.d, bad.note); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("AcquireLease(%+.20q, %+.20q, %v, %+.20q) returned %v: want an error that wraps es.ErrInvalid", bad.name, bad.holder, bad.d, bad.note, err)
		}
	}
	if leases := t.listed(s); len(leases) > 0 {
		t.Errorf("a refused call created %+.200v", leases)
	}
}
