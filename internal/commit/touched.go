package commit

import "github.com/thalo-go/es"

// Touched is the tagged events of requests, by tag. A backend that checks conditions before it writes a batch keeps requests out of it whose
// conditions an event of the batch matches. The zero value has none.
type Touched struct {
	byTag map[string][]touch
}

type touch struct {
	kind  string
	event *es.Record
}

// Add adds the events of a request.
func (t *Touched) Add(r *Request) {
	for i := range r.Appends {
		a := &r.Appends[i]
		for j := range a.Events {
			for _, tag := range a.Events[j].Tags {
				if t.byTag == nil {
					t.byTag = make(map[string][]touch)
				}
				t.byTag[tag] = append(t.byTag[tag], touch{a.Stream.Kind, &a.Events[j]})
			}
		}
	}
}

// Reset removes all events.
func (t *Touched) Reset() { clear(t.byTag) }

// Matches returns the first append of a request whose condition an event matches, if it is about records after a position at or below one.
func (t *Touched) Matches(r *Request, upTo es.Position) (*es.Append, bool) {
	if len(t.byTag) == 0 {
		return nil, false
	}
	for i := range r.Appends {
		a := &r.Appends[i]
		if a.Unless.After > upTo {
			continue
		}
		for _, f := range a.Unless.Match {
			for _, e := range t.byTag[f.Tags[0]] {
				if f.Match(es.Record{Stream: es.Stream{Kind: e.kind}, Type: e.event.Type, Tags: e.event.Tags}) {
					return a, true
				}
			}
		}
	}
	return nil, false
}
