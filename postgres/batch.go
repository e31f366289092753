package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/commit"
)

// A batch holds the parameters of one call of a function that appends. Its memory is reused for the next batch.
type batch struct {
	requests []*commit.Request // those in the batch
	rest     []*commit.Request // those that need another batch
	stale    []*commit.Request // those with a verdict that holds only if the batch is written
	last     []int             // of each request, the number of events in the batch up to and including its own
	lost     []bool            // of each append, whether it expects a version of a lost history
	look     bool              // whether the function has to look up heads and commands before it writes
	tokens   int64             // event n of the batch, counted from 1, has this plus n
	events   int

	// What the server compares with the log, as of the time when the batch was filled; see heads.
	known es.Position
	token int64
	epoch int // see heads

	// Parameters of the function, as it names them.
	eKind, eID, eVersion, eType, eData, eMeta   array
	cKind, cID, cCommand, cFirst, cLast         array
	sKind, sID                                  array
	aCall, aStream, aExpected, aCount, aCommand array
	anyMeta                                     bool
	tags                                        tagArrays
	params                                      params
	heads                                       map[es.Stream]es.Version // after the batch, if they are known
	streams                                     map[es.Stream]int        // index into s_*
	commands                                    map[command]bool
}

type command struct {
	stream es.Stream
	id     string
}

func (b *batch) reset() {
	clear(b.requests)
	clear(b.stale)
	b.params.reset()
	b.requests, b.stale, b.rest, b.last, b.lost, b.look, b.events, b.anyMeta = b.requests[:0], b.stale[:0], nil, b.last[:0], b.lost[:0], false, 0, false
	b.tags.reset()
	b.tokens = rand.Int64N(math.MaxInt64 - 2*es.MaxEvents)
	for _, a := range []*array{&b.eKind, &b.eID, &b.eType, &b.eMeta, &b.cKind, &b.cID, &b.cCommand, &b.sKind, &b.sID} {
		a.reset(oidText)
	}
	for _, a := range []*array{&b.eVersion, &b.cFirst, &b.cLast, &b.aExpected} {
		a.reset(oidInt8)
	}
	for _, a := range []*array{&b.aCall, &b.aStream, &b.aCount, &b.aCommand} {
		a.reset(oidInt4)
	}
	b.eData.reset(oidBytea)
	if b.heads == nil {
		b.heads, b.streams, b.commands = make(map[es.Stream]es.Version), make(map[es.Stream]int), make(map[command]bool)
	}
	clear(b.heads)
	clear(b.streams)
	clear(b.commands)
}

// fill takes requests into the batch. A request that conflicts with the cached heads gets its verdict at once and is left out, if other
// requests in the batch will verify the heads.
func (b *batch) fill(requests []*commit.Request, h *heads, look bool) {
	b.reset()
	b.look = look
	h.mu.Lock()
	defer h.mu.Unlock()
	first := -1 // of stale, without those that are lost
	// With the heads, because a rewind between the two would vouch for versions of a lost history.
	b.known, b.token, b.epoch = h.position, h.token, h.epoch
	for i, r := range requests {
		if b.repeats(r) {
			b.rest = slices.Concat(b.rest, requests[i:]) // command ids are checked before the insert, so duplicates cannot share a batch
			break
		}
		if b.waits(r) {
			b.rest = append(b.rest, r)
			continue
		}
		if r.Err = stale(r, h); r.Err == nil {
			b.take(r, h)
			continue
		}
		if first < 0 && !errors.Is(r.Err, es.ErrRewound) {
			first = len(b.stale)
		}
		b.stale = append(b.stale, r)
	}
	if len(b.requests) == 0 && first >= 0 {
		b.take(b.stale[first], h)
		b.stale = slices.Delete(b.stale, first, first+1)
	}
}

// unwritten returns the requests that need another batch because this one was not written.
func (b *batch) unwritten() []*commit.Request { return slices.Concat(b.stale, b.rest) }

// waits reports whether a request needs another batch than this one, because the server checks conditions before it writes, and an event of
// this batch may break one of its conditions.
func (b *batch) waits(r *commit.Request) bool {
	if !b.tags.used || r.Broken {
		return false
	}
	_, waits := b.tags.touched.Matches(r, math.MaxInt64)
	return waits
}

func (b *batch) take(r *commit.Request, h *heads) {
	if tagsOf(r) {
		b.tags.use(b.events)
		b.look = true
		if !r.Broken {
			b.tags.touched.Add(r)
		}
	}
	var reached map[es.Stream]es.Version // including the appends of the request so far
	if h.rewound {
		reached = make(map[es.Stream]es.Version, len(r.Appends))
	}
	for j := range r.Appends {
		a := &r.Appends[j]
		if !h.rewound {
			b.add(len(b.requests), a, false, h)
			continue
		}
		v, found := reached[a.Stream]
		if !found {
			v = h.version(a.Stream)
		}
		// The writes of other requests in the batch do not count, because no reader has seen them.
		b.add(len(b.requests), a, h.isLost(a, v), h)
		reached[a.Stream] = v + es.Version(len(a.Events))
	}
	b.requests = append(b.requests, r)
	b.last = append(b.last, b.events)
}

// repeats reports whether a request has a command id that the batch has already.
func (b *batch) repeats(r *commit.Request) bool {
	for i := range r.Appends {
		if a := &r.Appends[i]; a.Command != "" && b.commands[command{a.Stream, a.Command}] {
			return true
		}
	}
	return false
}

// stale returns the conflict of a request with the cached heads, or nil. A command may be a duplicate, so the server has to judge it.
func stale(r *commit.Request, h *heads) error {
	if len(r.Appends) != 1 {
		return nil
	}
	a := &r.Appends[0]
	known := h.version(a.Stream)
	switch {
	case a.Command != "" || a.Expected == es.AnyVersion || len(a.Unless.Match) > 0:
		return nil
	case h.isLost(a, known):
		return conflictOf(a, true)
	case known > a.Expected:
		return conflictOf(a, false)
	}
	return nil
}

func conflictOf(a *es.Append, lost bool) error {
	err := &es.ConflictError{Stream: a.Stream, Expected: a.Expected}
	if lost {
		return fmt.Errorf("%w: %w", err, es.ErrRewound)
	}
	return err
}

func (b *batch) add(call int, a *es.Append, lost bool, h *heads) {
	head, planned := b.heads[a.Stream]
	if !planned {
		head = h.version(a.Stream)
	}
	expected := int64(a.Expected)
	if lost {
		expected, b.look = math.MaxInt64, true
	}
	if a.Expected != es.AnyVersion && a.Expected != head || a.Expected == es.AnyVersion && head == 0 || len(a.Events) == 0 {
		b.look = true
	}
	stream, found := b.streams[a.Stream]
	if !found {
		stream = len(b.streams) + 1
		b.streams[a.Stream] = stream
		b.sKind.text(a.Stream.Kind)
		b.sID.text(a.Stream.ID)
	}
	b.lost = append(b.lost, lost)
	if b.tags.used {
		b.tags.condition(len(b.lost), &a.Unless)
	}
	b.aCall.int4(call)
	b.aStream.int4(stream)
	b.aExpected.int8(expected)
	b.aCount.int4(len(a.Events))
	if a.Command == "" {
		b.aCommand.int4(0)
	} else {
		b.commands[command{a.Stream, a.Command}] = true
		b.cKind.text(a.Stream.Kind)
		b.cID.text(a.Stream.ID)
		b.cCommand.text(a.Command)
		b.cFirst.int8(int64(head) + 1)
		b.cLast.int8(int64(head) + int64(len(a.Events)))
		b.aCommand.int4(b.cKind.n)
	}
	for i := range a.Events {
		e := &a.Events[i]
		head++
		b.events++
		b.eKind.text(a.Stream.Kind)
		b.eID.text(a.Stream.ID)
		b.eVersion.int8(int64(head))
		b.eType.text(e.Type)
		b.eData.bytes(e.Data)
		b.eMeta.text(b.meta(e.Meta))
		if b.tags.used {
			b.tags.event(b.events, a.Stream.Kind, e.Tags)
		}
	}
	b.heads[a.Stream] = head
}

func (b *batch) meta(meta map[string]string) string {
	if len(meta) == 0 {
		return ""
	}
	b.anyMeta = true
	text, _ := json.Marshal(meta) // has no error for a map of strings
	return string(text)
}

// single reports whether the batch consists of one event with a known version and without a command.
func (b *batch) single() bool { return b.events == 1 && b.cKind.n == 0 && !b.look }

// event returns the arrays with one element for each event.
func (b *batch) event() [6]*array {
	return [...]*array{&b.eKind, &b.eID, &b.eVersion, &b.eType, &b.eData, &b.eMeta}
}

// call returns the statement that writes the batch, and its parameters.
func (b *batch) call(s *statements, known es.Position, token int64) (*statement, [][]byte) {
	p := &b.params
	p.reset()
	p.int8(b.tokens)
	p.int8(int64(known))
	p.int8(token)
	if b.single() {
		for _, a := range b.event() {
			p.add(a.only())
		}
		return s.appendOne, p.values
	}
	p.add(b.eKind.param(), b.eID.param(), b.eVersion.param(), b.eType.param(), b.eData.param(), nil)
	if b.anyMeta {
		p.values[len(p.values)-1] = b.eMeta.param()
	}
	if b.tags.used {
		p.add(b.tags.eTags.param())
	}
	commands := []*array{&b.cKind, &b.cID, &b.cCommand, &b.cFirst, &b.cLast}
	if b.look {
		commands = commands[:3]
	}
	for _, a := range commands {
		if b.cKind.n == 0 {
			p.add(nil)
		} else {
			p.add(a.param())
		}
	}
	if !b.look {
		return s.appendKnown, p.values
	}
	for _, a := range []*array{&b.sKind, &b.sID, &b.aCall, &b.aStream, &b.aExpected, &b.aCount, &b.aCommand} {
		p.add(a.param())
	}
	if b.tags.used {
		b.tags.params(p)
		return s.appendTagged, p.values
	}
	return s.appendJudged, p.values
}
