// Package relaynote is the text in the lease of a relay, which tools and metrics read without linking a Kafka client.
package relaynote

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Note is the state of a relay when it last extended its lease.
type Note struct {
	Position int64         // the checkpoint
	Behind   int64         // records between it and the end of the log
	Rate     float64       // records per second
	Age      time.Duration // since the first record after the checkpoint was written; 0 in the note of a release before 2026-12
	Throttle time.Duration // for how long the broker has held back answers
	Error    string        // of the last attempt; "" if it succeeded
}

// String returns the text.
func (n Note) String() string {
	text := fmt.Sprintf("position %d, %d behind, %.0f records/s, %.1f s old", n.Position, n.Behind, n.Rate, n.Age.Seconds())
	if n.Throttle > 0 {
		text += fmt.Sprintf(", throttled %.1f s", n.Throttle.Seconds())
	}
	if n.Error != "" {
		const most = 500 // bytes
		text += ", error: " + strings.ToValidUTF8(strings.ReplaceAll(n.Error[:min(len(n.Error), most)], "\x00", ""), "")
	}
	return text
}

var form = regexp.MustCompile(`(?s)^position (\d+), (\d+) behind, (\d+) records/s(?:, (\d+\.\d) s old)?(?:, throttled (\d+\.\d) s)?(?:, error: (.*))?$`)

// Parse returns the Note of a text, if it is one.
func Parse(text string) (n Note, ok bool) {
	m := form.FindStringSubmatch(text)
	if m == nil {
		return n, false
	}
	var errs [2]error
	n.Position, errs[0] = strconv.ParseInt(m[1], 10, 64)
	n.Behind, errs[1] = strconv.ParseInt(m[2], 10, 64)
	n.Rate, _ = strconv.ParseFloat(m[3], 64)
	age, _ := strconv.ParseFloat(m[4], 64)
	n.Age = time.Duration(age * float64(time.Second))
	throttle, _ := strconv.ParseFloat(m[5], 64)
	n.Throttle, n.Error = time.Duration(throttle*float64(time.Second)), m[6]
	return n, errs[0] == nil && errs[1] == nil
}

const prefix = "relay/"

// Lease returns the name of the lease of a relay.
func Lease(topics, name string) string { return prefix + topics + "/" + name }

// Relay returns the prefix of the topics and the name of the relay that a lease belongs to, if it is one's.
func Relay(lease string) (topics, name string, ok bool) {
	rest, ok := strings.CutPrefix(lease, prefix)
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+1:], true
}
