package projection

import (
	"encoding/json"
	"time"
)

// Cause says why a projection or reaction is behind, and what to do about it.
type Cause struct {
	Code    CauseCode     // for programs; [CauseNone] if nothing is behind
	Shard   string        // the first one that the cause holds back; "" if it concerns all
	Message string        // for people: what is the matter, with names and numbers
	Remedy  string        // what to do; "" if nothing needs to be done
	Since   time.Time     // zero if not known
	Left    time.Duration // until it has caught up at its present rate, if Code is CauseCatchingUp
}

// CauseCode names a cause. Codes are stable.
type CauseCode string

// The causes, in the order in which they are looked for.
const (
	CauseNone        CauseCode = ""                   // it is up to date, or what waits is not due
	CauseUnknownType CauseCode = "unknown-type"       // no running worker knows an event type
	CauseStopped     CauseCode = "stopped"            // a run ended with an error
	CauseNoWorker    CauseCode = "no-worker"          // no process runs it
	CauseLocked      CauseCode = "locked"             // its transaction waits for a lock of another session
	CauseIdle        CauseCode = "idle"               // its transaction waits for its own handler, which does something else
	CauseSource      CauseCode = "source-unavailable" // its source does not answer
	CauseDatabase    CauseCode = "database"           // a fault of the database, such as a full disk
	CauseFailing     CauseCode = "failing"            // its handler fails, and is tried again
	CauseRepartition CauseCode = "repartition"        // its shards wait for each other before they are divided anew
	CauseFiltered    CauseCode = "filtered"           // all records that it has not seen are excluded by its filter
	CauseCatchingUp  CauseCode = "catching-up"        // it advances
	CauseHandling    CauseCode = "handling"           // it does not advance, and its worker reports no error
	CauseNotDue      CauseCode = "not-due"            // its timers are due in the future
)

type causeJSON struct {
	Code    CauseCode `json:"code"`
	Shard   string    `json:"shard,omitzero"`
	Message string    `json:"message"`
	Remedy  string    `json:"remedy,omitzero"`
	Since   time.Time `json:"since,omitzero"`
	Left    float64   `json:"leftSeconds,omitzero"`
}

// MarshalJSON implements [json.Marshaler]. Left becomes leftSeconds.
func (c Cause) MarshalJSON() ([]byte, error) {
	return json.Marshal(causeJSON{c.Code, c.Shard, c.Message, c.Remedy, c.Since, c.Left.Seconds()})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *Cause) UnmarshalJSON(data []byte) error {
	var j causeJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*c = Cause{j.Code, j.Shard, j.Message, j.Remedy, j.Since, time.Duration(j.Left * float64(time.Second))}
	return nil
}
