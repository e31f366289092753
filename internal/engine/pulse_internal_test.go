package engine

import (
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	start := instant{time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), time.Minute}
	after := func(day, running time.Duration) instant { return instant{start.day.Add(day), start.running + running} }
	var p pulse
	if _, found := p.age(start); found {
		t.Error("there is an age before the first beat")
	}
	p.beat(start)
	for name, test := range map[string]struct {
		now instant
		age time.Duration
	}{
		"both clocks run":              {after(3*time.Second, 3*time.Second), 3 * time.Second},
		"the day was set back":         {after(-time.Hour, 3*time.Second), 3 * time.Second},
		"the day was set forward":      {after(time.Hour, 3*time.Second), time.Hour},
		"the machine was suspended":    {after(8*time.Hour, time.Second), 8 * time.Hour},
		"suspended, and then set back": {after(-time.Hour, time.Second), time.Second},
	} {
		if age, _ := p.age(test.now); age != test.age {
			t.Errorf("%s: the age is %v, want %v", name, age, test.age)
		}
	}
	now := newClock()
	if a, b := now(), now(); b.running < a.running || time.Until(a.day).Abs() > time.Minute {
		t.Errorf("the clocks have %v and then %v", a, b)
	}
}
