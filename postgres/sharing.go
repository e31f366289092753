package postgres

// Sharing says how a store shares flushes with other processes: see [Store.Sharing]. The counters begin at zero when the store is opened.
// A batch holds the appends of one transaction of the store.
type Sharing struct {
	// Active is whether the store leaves its batches for other processes at present. It begins when the store often meets other writers, and
	// ends while it would not pay.
	Active bool `json:"active"`

	// Never says why the store never leaves a batch: it has inline projections, it is read-only, or its role or the server cannot. "" means that
	// it may.
	Never string `json:"never,omitempty"`

	// Draining is whether a batch is in flight whose callers have all left. They got [es.ErrUnknownOutcome]. The store ends it after 15
	// seconds, and Close waits for it.
	Draining bool `json:"draining,omitempty"`

	Left       int64 `json:"left"`       // batches that were left for other processes
	Served     int64 `json:"served"`     // those of them that another process has written
	Unanswered int64 `json:"unanswered"` // those of them whose call brought no answer, so that the store found out about them by token
	Others     int64 `json:"others"`     // batches of other processes that this store has written
	Direct     int64 `json:"direct"`     // batches that were sent directly although Active: they were large, or another process could not write them
}

// Sharing returns whether and how the store shares flushes with other processes. It does not ask the server.
func (s *Store) Sharing() Sharing {
	c := &s.company
	c.mu.Lock()
	defer c.mu.Unlock()
	sharing := c.counts
	sharing.Active, sharing.Never = c.now.Load(), c.never
	return sharing
}

// sharesNever says why a store with these settings never leaves a batch, or returns "".
func (c *Config) sharesNever() string {
	switch {
	case c.ReadOnly:
		return "the store is read-only"
	case len(c.Inline) > 0:
		return "the store has inline projections, which run in its own transactions"
	}
	return ""
}
