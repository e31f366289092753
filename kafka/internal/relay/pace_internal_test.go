package relay

import (
	"testing"
	"time"

	"github.com/thalo-go/es/kafka/internal/client"
)

// quota is a broker that lets the bytes of ten seconds through at once, and answers later if there were more, as Kafka does.
type quota struct {
	rate   float64 // bytes per second
	budget float64
}

// send returns how long a batch takes.
func (q *quota) send(bytes int) time.Duration {
	q.budget = max(q.budget-float64(bytes), -11*q.rate) // it measures eleven seconds, and forgets what was before
	late := max(0, -q.budget/q.rate)
	return time.Duration(late*float64(time.Second)) + 50*time.Millisecond
}

// wait lets time pass.
func (q *quota) wait(d time.Duration) { q.budget = min(q.budget+q.rate*d.Seconds(), 10*q.rate) }

func TestPaceUnderAQuota(t *testing.T) {
	for _, rate := range []float64{5_000, 100_000, 3_000_000, 1e9} {
		p := newPace(client.ConfigMap{}, 16<<20, true)
		q := &quota{rate, 10 * rate}
		sent, timedOut := 0, 0
		clock, half := time.Duration(0), 0
		for clock < 10*time.Minute {
			bytes := p.bytes()
			took := q.send(bytes)
			if took > p.longer {
				took = p.longer
				timedOut++
				p.timedOut(bytes, 1, took)
			} else {
				sent += bytes
				p.committed(bytes, took)
			}
			q.wait(took)
			clock += took
			if clock < 5*time.Minute {
				half = sent
			}
		}
		used := float64(sent-half) / rate / (5 * time.Minute).Seconds()
		t.Logf("%.0f bytes per second: %d batches timed out, %.2f of the quota used", rate, timedOut, used)
		if rate < 1e9 && used < 0.8 || timedOut > 5 {
			t.Error("that is too little, or too often")
		}
		if rate == 1e9 && p.limit != 0 {
			t.Errorf("batches are limited to %d bytes by a broker that is fast", p.limit)
		}
		q.rate, q.budget = 1e9, 1e9
		for range 2000 {
			took := q.send(p.bytes())
			p.committed(p.bytes(), took)
			q.wait(took)
		}
		if p.limit != 0 {
			t.Errorf("batches are limited to %d bytes after the quota was raised", p.limit)
		}
	}
}

// A broker that does not answer says nothing about bytes. A relay that publishes one record a transaction afterwards does not catch up.
func TestPaceAfterABrokerThatDidNotAnswer(t *testing.T) {
	p := pace{most: 16 << 20, target: time.Second, longer: 4 * time.Second}
	for _, bytes := range []int{7456, 818, 112, 112} {
		p.timedOut(bytes, 0, p.longer)
		if p.limit < 4096 {
			t.Errorf("after a batch of %d bytes the next has %d", bytes, p.limit)
		}
	}
	p.committed(6000, time.Millisecond) // one record, which may be above the limit
	if p.limit < 6000 {
		t.Errorf("after a fast batch of 6000 bytes the next has %d", p.limit)
	}
}
