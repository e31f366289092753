package client

import "time"

// sparseEvery is the least time between two log lines about events that may come by the million.
const sparseEvery = time.Minute

// Sparse limits the log lines about one thing. Its zero value lets the first line through.
type Sparse struct{ last time.Time }

// Due reports whether a line is due now.
func (s *Sparse) Due() bool {
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < sparseEvery {
		return false
	}
	s.last = now
	return true
}
