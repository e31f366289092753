package client

import "time"

// Waiting is a record that waits. The zero value is none.
type Waiting struct {
	Written time.Time // by the clock of the log
	Since   time.Time // when this process knew that it waits
}

// Wait returns a record that waits from now on.
func Wait(written time.Time) Waiting { return Waiting{written, time.Now()} }

// Age returns how long the record has waited. If it is dated in the future, its time does not say: then the age is since this process knew of it,
// and ahead says how far its time is ahead of this machine's clock.
func (w Waiting) Age() (age, ahead time.Duration) {
	if w.Since.IsZero() {
		return 0, 0
	}
	if age = time.Since(w.Written); age > 0 {
		return age, 0
	}
	return max(time.Since(w.Since), time.Microsecond), -age
}
