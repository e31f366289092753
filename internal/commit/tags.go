package commit

import (
	"fmt"

	"github.com/thalo-go/es"
)

// CheckUntagged returns an error for appends with tags or conditions, from a backend that does not store tags.
func CheckUntagged(appends []es.Append) error {
	for i := range appends {
		a := &appends[i]
		if len(a.Unless.Match) > 0 {
			return fmt.Errorf("%w: append to %s has a condition, which this store does not check yet: use es.Mem", es.ErrInvalid, a.Stream)
		}
		for j := range a.Events {
			if len(a.Events[j].Tags) > 0 {
				return fmt.Errorf("%w: append to %s: event %q has tags, which this store does not keep yet: use es.Mem", es.ErrInvalid, a.Stream, a.Events[j].Type)
			}
		}
	}
	return nil
}

// CheckUntaggedFilter returns an error for a filter with tags, from a backend that does not store tags.
func CheckUntaggedFilter(f es.Filter) error {
	if len(f.Tags) > 0 {
		return fmt.Errorf("%w: filter with tags %.80q, which this store does not keep yet: use es.Mem", es.ErrInvalid, f.Tags)
	}
	return nil
}
