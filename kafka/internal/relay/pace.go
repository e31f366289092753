package relay

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/thalo-go/es/kafka/internal/client"
)

// pace limits the bytes of a batch after one was slow or has timed out: the brokers may throttle the relay because of a quota, and a batch
// that did not arrive in time does not arrive when it is repeated. The limit grows again while batches are fast: it doubles up to what was
// known to be fast enough, and grows slowly from there, because a quota lets the bytes of some seconds through before it is felt. It outlives sessions.
type pace struct {
	limit  int           // bytes; 0 means that there is none but most
	known  int           // bytes that took about target when a batch was slow the last time
	most   int           // Config.Bytes
	target time.Duration // how long a batch should take at most
	longer time.Duration // after this long a batch times out
}

// leastBatch is a limit in bytes below which a batch does not arrive sooner. One that is so small was slow for another reason than a quota, such
// as a broker that did not answer, and one record a transaction would only prolong that.
const leastBatch = 4096

// newPace reads the timeout of a batch from the settings of its producer.
func newPace(producer client.ConfigMap, most int, transactional bool) pace {
	longer := milliseconds(producer["message.timeout.ms"], 5*time.Minute)
	if transactional {
		longer = min(longer, milliseconds(producer["transaction.timeout.ms"], client.TransactionTimeout))
	}
	return pace{most: most, longer: longer, target: min(longer, client.TransactionTimeout) / 4}
}

func milliseconds(setting kafka.ConfigValue, otherwise time.Duration) time.Duration {
	n, err := strconv.Atoi(fmt.Sprint(setting))
	if err != nil || n <= 0 {
		return otherwise
	}
	return time.Duration(n) * time.Millisecond
}

// bytes returns the most bytes of a batch.
func (p *pace) bytes() int {
	if p.limit > 0 {
		return p.limit
	}
	return p.most
}

// committed notes how long a batch took.
func (p *pace) committed(bytes int, took time.Duration) {
	slow := took > p.target
	if !slow && (p.limit == 0 || bytes < p.limit/2) {
		return // the usual case, or a batch too small to tell
	}
	switch {
	case slow:
		p.limit = max(int(float64(bytes)*float64(p.target)/float64(took)), bytes/4, leastBatch)
		p.known = p.limit
	case p.limit < p.known:
		p.limit = min(2*p.limit, p.known)
	default:
		p.limit = max(p.limit, bytes) // a batch has at least one record, which may be larger
		p.limit += p.limit/32 + 1
	}
	if p.limit >= p.most {
		p.limit = 0
	}
}

// timedOut notes that only a share of a batch had arrived after a time, and the batch has timed out.
func (p *pace) timedOut(bytes int, share float64, after time.Duration) {
	within := int(float64(bytes) * share * float64(p.target) / float64(max(after, 1)))
	if within == 0 {
		within = bytes / 2
	}
	// What has arrived is no measure of a quota, which lets the bytes of some seconds through at once. So the next batch is much smaller.
	p.limit = max(min(within, bytes/2)/4, leastBatch)
	p.known = p.limit
}

// sending is the batch in flight.
type sending struct {
	begun    time.Time
	messages int
	bytes    int
	left     int           // messages that had not arrived when they were counted last
	counted  time.Duration // when that was, after begun
}

func (s *session) sendingOf(b batch) sending {
	return sending{begun: time.Now(), messages: len(s.plan), bytes: b.bytes, left: len(s.plan)}
}

// count counts the messages that have not arrived yet. Those that have timed out are not among them any more.
func (s *session) count() {
	if d := time.Since(s.sending.begun); d < s.r.pace.longer*9/10 {
		s.sending.left, s.sending.counted = min(s.p.Len(), s.sending.messages), d
	}
}

// paced notes how a batch ended.
func (s *session) paced(err error) {
	now, p := s.sending, &s.r.pace
	took := time.Since(now.begun)
	before := p.limit
	switch {
	case err == nil:
		p.committed(now.bytes, took)
	case took < p.longer*9/10 || now.messages == 0:
		return // it failed for another reason
	default:
		p.timedOut(now.bytes, 1-float64(now.left)/float64(now.messages), now.counted)
		s.r.log.Warn("kafka: batch timed out, next batches are smaller", "messages", now.messages, "bytes", now.bytes, "after", took.Round(time.Millisecond),
			"next", p.limit, "throttle", s.r.Stats.Snapshot().Throttle)
	}
	if p.limit == before {
		return
	}
	if p.limit == 0 {
		s.r.log.Info("kafka: batches have their full size again", "bytes", p.most)
	}
	s.r.Stats.set(func(st *Snapshot) { st.BatchBytes = p.limit })
}

// throttle is what the relay reads of librdkafka's statistics.
type throttle struct {
	Brokers map[string]struct {
		Throttle struct {
			Max int64 `json:"max"` // ms, since the statistics before
		} `json:"throttle"`
	} `json:"brokers"`
}

// statistics notes for how long the brokers throttle the producer: because of a quota they answer nothing on its connection for that time.
func (r *Relay) statistics(text string) {
	var t throttle
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return
	}
	var longest time.Duration
	for _, broker := range t.Brokers {
		longest = max(longest, time.Duration(broker.Throttle.Max)*time.Millisecond)
	}
	if longest == 0 {
		return
	}
	r.Stats.throttle(longest)
	if r.throttleLog.Due() {
		r.log.Warn("kafka: the brokers throttle the relay; raise producer_byte_rate of its user", "throttle", longest)
	}
}
