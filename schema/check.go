package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/thalo-go/es"
)

// What Check reads at most, so that it takes about a second however long a log is.
const (
	newest = 100_000 // records at the end of the log
	places = 32      // before those, evenly spread
	place  = 1_000   // records at each of them
)

// Checked is what [Check] has looked at.
type Checked struct {
	Read    int            // records that were read; those of other kinds count
	Whole   bool           // the log has no more
	Decoded map[string]int // records that were decoded, by type; retired and redacted ones count
	Missing []string       // names that the codec writes and of which there was no record, sorted
}

// Check decodes the newest n records of each type in a log. Run it in a test or command of the program before a release, on a copy of the live log
// or on the log itself: it only reads. kinds are those of the streams that the codec is for; none means all.
//
// It reads the newest 100,000 records, and 1,000 at each of 32 places before those, by position, so it needs no index and never reads the whole
// of a longer log. [Checked] says what was found. A type that is only elsewhere is not checked: TestSchemas of package estest covers what was ever written.
//
// The error has the first record of each type that cannot be decoded, and its reason, such as an [*es.UnknownEventError].
func Check[E any](ctx context.Context, log es.Log, codec *es.Codec[E], n int, kinds ...string) (Checked, error) {
	c := check[E]{Checked: Checked{Decoded: make(map[string]int)}, codec: codec, n: n, kinds: kinds, failed: make(map[string]error)}
	if n < 1 {
		return c.Checked, fmt.Errorf("schema: %w: n is %d, and at least one record of each type is to be decoded", es.ErrInvalid, n)
	}
	head, err := es.Head(ctx, log)
	if err != nil {
		return c.Checked, fmt.Errorf("schema: %w", err)
	}
	upTo, span := head, es.Position(1000)
	for upTo > 0 && head-upTo < newest { // each piece is twice as long, and its records are newer than those of the next
		from := max(0, upTo-span, head-newest)
		if err := c.piece(ctx, log, from, upTo); err != nil {
			return c.Checked, err
		}
		upTo = from
		span = min(2*span, newest/4)
	}
	c.Whole = upTo == 0
	for i, rest := es.Position(places), upTo; i > 0 && rest > 0; i-- {
		end := rest * i / places
		from := max(0, end-place, rest*(i-1)/places)
		if err := c.piece(ctx, log, from, end); err != nil {
			return c.Checked, err
		}
		c.Whole = c.Read >= int(head)
	}
	for _, name := range codec.Names() {
		if c.Decoded[name] == 0 && c.failed[name] == nil {
			c.Missing = append(c.Missing, name)
		}
	}
	return c.Checked, c.errors()
}

type check[E any] struct {
	Checked
	codec  *es.Codec[E]
	n      int
	kinds  []string
	failed map[string]error // the first of each type
}

// piece decodes what is still to be decoded of the records after a position, up to another one.
func (c *check[E]) piece(ctx context.Context, log es.Log, from, upTo es.Position) error {
	if from >= upTo {
		return nil
	}
	last := make(map[string][]es.Record) // the newest of each type, as many as are needed
	for r, err := range log.All(ctx, from, es.Filter{}) {
		if err != nil {
			return fmt.Errorf("schema: %w", err)
		}
		c.Read++
		if need := c.n - c.Decoded[r.Type]; need > 0 && c.failed[r.Type] == nil && (len(c.kinds) == 0 || slices.Contains(c.kinds, r.Stream.Kind)) {
			if len(last[r.Type]) == need {
				last[r.Type] = slices.Delete(last[r.Type], 0, 1)
			}
			last[r.Type] = append(last[r.Type], r)
		}
		if r.Position >= upTo {
			break
		}
	}
	for name, records := range last {
		for _, r := range slices.Backward(records) {
			if _, err := c.codec.Decode(r); err != nil && !errors.Is(err, es.ErrRetired) {
				c.failed[name] = fmt.Errorf("schema: position %d: %w", r.Position, err)
				break
			}
			c.Decoded[name]++
		}
	}
	return nil
}

func (c *check[E]) errors() error {
	var names []string
	for name := range c.failed {
		names = append(names, name)
	}
	slices.Sort(names)
	var all []error
	for _, name := range names {
		all = append(all, c.failed[name])
	}
	return errors.Join(all...)
}
