package es_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

type (
	school       = es.Decisions[enrolment.State, enrolment.Command, enrolment.Event]
	schoolResult = es.Result[enrolment.State, enrolment.Event]
)

// enrol runs a command that must succeed.
func enrol(t testing.TB, d *school, c enrolment.Command, options ...es.ExecuteOption) schoolResult {
	t.Helper()
	result, err := d.Execute(t.Context(), c, options...)
	if err != nil {
		t.Fatalf("%T %+v: %v", c, c, err)
	}
	return result
}

// code returns the code of a refusal, or the text of another error.
func code(err error) string {
	var refusal *es.InvariantError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &refusal):
		return refusal.Code
	}
	return err.Error()
}

func TestDecisions(t *testing.T) {
	log := newSpy()
	d := enrolment.New(log)
	enrol(t, d, enrolment.Define{Course: "go", Capacity: 2})
	for _, s := range []string{"ann", "bob", "cem"} {
		enrol(t, d, enrolment.Register{Student: s})
	}
	ann := enrolment.Subscribe{Course: "go", Student: "ann"}
	enrol(t, d, ann)
	got := enrol(t, d, enrolment.Subscribe{Course: "go", Student: "bob"}, es.CommandID("b"), es.Meta(map[string]string{"by": "clerk"}))
	want := schoolResult{
		Versioned: es.Versioned[enrolment.State]{State: enrolment.State{Course: "go", Student: "bob", Capacity: 2, Taken: 2, Registered: true, Courses: 1, Subscribed: true}, Position: 6},
		Events:    []enrolment.Event{enrolment.Subscribed{Course: "go", Student: "bob"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if r := stored(t, log, es.Stream{Kind: "course", ID: "go"})[2]; r.Meta["by"] != "clerk" || strings.Join(r.Tags, " ") != "course:go student:bob" {
		t.Errorf("stored %+v", r)
	}
	if _, err := d.Execute(t.Context(), enrolment.Subscribe{Course: "go", Student: "cem"}); code(err) != "COURSE_FULL" {
		t.Errorf("a third student of two places: %v", err)
	}
	if again := enrol(t, d, ann); len(again.Events) != 0 || again.Position != 6 {
		t.Errorf("a no-op: %+v; want no events and the position of the last event in its state", again)
	}
	enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 3})
	enrol(t, d, enrolment.Subscribe{Course: "go", Student: "cem"})
	first := got
	first.Repeated = true
	for name, other := range map[string]*school{"the same": d, "another": enrolment.New(log)} {
		got := enrol(t, other, enrolment.Subscribe{Course: "go", Student: "bob"}, es.CommandID("b"))
		if diff := cmp.Diff(first, got); diff != "" {
			t.Errorf("repeated on %s: not the first outcome (-want +got):\n%s", name, diff)
		}
	}
	at, err := enrolment.New(log).Load(t.Context(), ann)
	if err != nil || at.State.Taken != 3 || at.Position != 8 || at.Version != 0 || at.Time.IsZero() {
		t.Errorf("Load: %+v, %v", at, err)
	}
	stats := d.Stats()
	if stats.Commands != 11 || stats.Refused != 1 || stats.Repeated != 1 || stats.CacheHits == 0 || stats.CacheMisses == 0 {
		t.Errorf("Stats: %+v", stats)
	}
}

func TestDecisionsOnCachedStatesReadNothing(t *testing.T) {
	log := newSpy()
	d := enrolment.New(log)
	enrol(t, d, enrolment.Define{Course: "go", Capacity: 100})
	enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 101})
	log.take()
	for n := range 5 {
		enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 110 + n})
	}
	if n := log.take(); len(n.Alls) != 0 || n.Changed != 0 || len(n.Appends) != 5 {
		t.Errorf("calls of the log: %+v; want five appends and nothing else", n)
	}
	enrol(t, enrolment.New(log), enrolment.ChangeCapacity{Course: "go", Capacity: 200})
	log.take()
	if got := enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 201}); got.State.Capacity != 201 {
		t.Errorf("%+v", got)
	}
	if n := log.take(); len(n.Alls) != 1 || n.Alls[0] != 6 || len(n.Appends) != 2 {
		t.Errorf("calls of the log after another writer: %+v; want a read from the last record of the state, and two appends", n)
	}
	if s := d.Stats(); s.Retries != 1 {
		t.Errorf("Stats: %+v; want one retry", s)
	}
}

// A cached state says that the course is full, but a place became free.
func TestRefusedDecisionsRestOnTheCurrentState(t *testing.T) {
	log := new(es.Mem)
	d, other := enrolment.New(log), enrolment.New(log)
	enrol(t, d, enrolment.Define{Course: "go", Capacity: 1})
	enrol(t, d, enrolment.Register{Student: "ann"})
	enrol(t, d, enrolment.Register{Student: "bob"})
	enrol(t, d, enrolment.Subscribe{Course: "go", Student: "ann"})
	bob := enrolment.Subscribe{Course: "go", Student: "bob"}
	if _, err := d.Execute(t.Context(), bob); code(err) != "COURSE_FULL" {
		t.Fatal(err)
	}
	enrol(t, other, enrolment.Unsubscribe{Course: "go", Student: "ann"})
	if got := enrol(t, d, bob); len(got.Events) != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := other.Execute(t.Context(), enrolment.Subscribe{Course: "go", Student: "ann"}); code(err) != "COURSE_FULL" {
		t.Errorf("two students in one place: %v", err)
	}
}

// Two decisions overlap in a course, or in a student. The other one is written between the reads of the first and its append.
func TestDecisionsThatOverlapDoNotBothTakeEffect(t *testing.T) {
	for _, test := range []struct {
		first, between enrolment.Subscribe
		want           string
	}{
		{enrolment.Subscribe{Course: "full", Student: "ann"}, enrolment.Subscribe{Course: "full", Student: "bob"}, "COURSE_FULL"},
		{enrolment.Subscribe{Course: "full", Student: "cem"}, enrolment.Subscribe{Course: "go", Student: "cem"}, "TOO_MANY_COURSES"},
		{enrolment.Subscribe{Course: "full", Student: "ann"}, enrolment.Subscribe{Course: "go", Student: "bob"}, ""},
	} {
		log := newSpy()
		d, other := enrolment.New(log), enrolment.New(log.Log)
		enrol(t, other, enrolment.Define{Course: "full", Capacity: 1})
		enrol(t, other, enrolment.Define{Course: "go", Capacity: 10})
		for _, s := range []string{"ann", "bob", "cem"} {
			enrol(t, other, enrolment.Register{Student: s})
		}
		for n := range enrolment.MaxCourses - 1 {
			enrol(t, other, enrolment.Define{Course: fmt.Sprint(n), Capacity: 1})
			enrol(t, other, enrolment.Subscribe{Course: fmt.Sprint(n), Student: "cem"})
		}
		log.append = func(_ context.Context, _ []es.Append, write func() (es.Position, error)) (es.Position, error) {
			log.append = nil
			enrol(t, other, test.between)
			return write()
		}
		if _, err := d.Execute(t.Context(), test.first); code(err) != test.want {
			t.Errorf("%+v beside %+v: %v; want %q", test.first, test.between, err, test.want)
		}
		if retries := d.Stats().Retries; retries != int64(min(1, len(test.want))) {
			t.Errorf("%+v beside %+v: %d retries", test.first, test.between, retries)
		}
	}
}

// Students of one course decide on different queries that overlap, in several processes. Each student takes one course too many.
func TestRacersDoNotOverbook(t *testing.T) {
	const courses, students, places = enrolment.MaxCourses + 1, 16, 5
	log := new(es.Mem)
	var schools []*school
	for range 3 {
		d := enrolment.New(log)
		d.Retries = 10_000
		schools = append(schools, d)
	}
	for c := range courses {
		enrol(t, schools[0], enrolment.Define{Course: fmt.Sprint(c), Capacity: places})
	}
	for s := range students {
		enrol(t, schools[0], enrolment.Register{Student: fmt.Sprint(s)})
	}
	var accepted atomic.Int64
	var racers sync.WaitGroup
	for s := range students {
		for c := range courses {
			racers.Go(func() {
				_, err := schools[(c+s)%len(schools)].Execute(t.Context(), enrolment.Subscribe{Course: fmt.Sprint(c), Student: fmt.Sprint(s)})
				switch code(err) {
				case "":
					accepted.Add(1)
				case "COURSE_FULL", "TOO_MANY_COURSES":
				default:
					t.Error(err)
				}
			})
		}
	}
	racers.Wait()
	taken, taking := map[string]int{}, map[string]int{}
	for r, err := range log.All(t.Context(), 0, es.Filter{Types: []string{"student.subscribed"}}) {
		if err != nil {
			t.Fatal(err)
		}
		taken[r.Tags[0]]++
		taking[r.Tags[1]]++
		accepted.Add(-1)
	}
	for c, n := range taken {
		if n != places {
			t.Errorf("%s: %d of %d places are taken, though more students asked for one", c, n, places)
		}
	}
	for s, n := range taking {
		if n > enrolment.MaxCourses {
			t.Errorf("%s takes %d courses", s, n)
		}
	}
	if accepted.Load() != 0 {
		t.Errorf("%d subscriptions were acknowledged and not written, or the reverse", accepted.Load())
	}
}

// Commands that wait for one boundary are appended together, with one condition.
func TestDecisionsShareAnAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newSpy()
		d := enrolment.New(log)
		enrol(t, d, enrolment.Define{Course: "go", Capacity: 1})
		hold := make(chan struct{})
		var conditions [][]int
		log.append = func(_ context.Context, appends []es.Append, write func() (es.Position, error)) (es.Position, error) {
			<-hold
			var filters []int
			for _, a := range appends {
				filters = append(filters, len(a.Unless.Match))
			}
			conditions = append(conditions, filters)
			return write()
		}
		var waiting sync.WaitGroup
		results := make([]schoolResult, 5)
		for n := range results {
			waiting.Go(func() {
				results[n] = enrol(t, d, enrolment.ChangeCapacity{Course: "go", Capacity: 10 + n})
			})
			synctest.Wait()
		}
		close(hold)
		waiting.Wait()
		if diff := cmp.Diff([][]int{{1}, {1, 0, 0, 0}}, conditions); diff != "" {
			t.Errorf("filters by append (-want +got):\n%s", diff)
		}
		for n, result := range results {
			if result.State.Capacity != 10+n || result.Position != es.Position(2+n) {
				t.Errorf("command %d: %+v", n, result)
			}
		}
	})
}

// countdown decides over the tag of its command. Its initial state is given with the command.
type countdown struct{}

type tick struct {
	Tag   string
	From  int
	Other bool // the event has another tag
}

func (countdown) Decide(n int, c tick) ([]tick, error) {
	return []tick{c, {Tag: c.Tag, Other: true}}, nil
}
func (countdown) Evolve(n int, _ tick) int { return n - 1 }

func newCountdown(log es.Log) *es.Decisions[int, tick, tick] {
	codec := es.JSON(map[string]tick{"ticked": {}}).Tag(func(e tick) []string {
		if e.Other {
			return []string{"other"}
		}
		return []string{e.Tag}
	})
	return es.NewDecisions(log, countdown{}, codec, func(c tick) es.Boundary[int] {
		return es.Boundary[int]{Initial: c.From, Query: []es.Filter{{Tags: []string{c.Tag}}}, Stream: es.Stream{Kind: "clock", ID: c.Tag}}
	})
}

func TestDecisionsFoldOnlyWhatTheirQuerySelects(t *testing.T) {
	d := newCountdown(new(es.Mem))
	for n := range 3 {
		for from := range 2 { // one query, two initial states
			c := tick{Tag: "t", From: 100 * from}
			got, err := d.Execute(t.Context(), c)
			want := 100*from - 2*n - from - 1
			if err != nil || got.State != want || len(got.Events) != 2 || got.Position != es.Position(4*n+2*from+1) {
				t.Errorf("%+v: %+v, %v; want state %d, the number of ticks with the tag", c, got, err, want)
			}
			at, err := d.Load(t.Context(), c)
			if err != nil || at.State != want || at.Position != got.Position {
				t.Errorf("Load: %+v, %v; want what Execute returned", at, err)
			}
		}
	}
}

func TestCommandsWithOtherInitialStatesHaveRoundsOfTheirOwn(t *testing.T) {
	d := newCountdown(new(es.Mem))
	var waiting sync.WaitGroup
	for n := range 64 {
		waiting.Go(func() {
			from := 1000 * (n % 3)
			got, err := d.Execute(t.Context(), tick{Tag: "t", From: from})
			if err != nil || got.State >= from || got.State < from-64 {
				t.Errorf("from %d: %+v, %v", from, got, err)
			}
		})
	}
	waiting.Wait()
}

func TestDecisionsAreBounded(t *testing.T) {
	var out bytes.Buffer
	log := new(es.Mem)
	d := newCountdown(log)
	d.Limit = 20
	d.Logger = slog.New(slog.NewTextHandler(&out, nil))
	c := tick{Tag: "t"}
	for n := range 21 {
		if _, err := d.Execute(t.Context(), c); err != nil {
			t.Fatalf("command %d: %v", n, err)
		}
		if warned := strings.Count(out.String(), "rests on many records"); warned != min(1, n/2) {
			t.Errorf("%d warnings after %d records; want one behind a tenth of the limit", warned, n+1)
		}
	}
	fresh := newCountdown(log)
	fresh.Limit = 20
	_, cached := d.Execute(t.Context(), c)
	_, executing := fresh.Execute(t.Context(), c)
	_, loading := fresh.Load(t.Context(), c)
	for name, err := range map[string]error{"cached": cached, "executing": executing, "loading": loading} {
		if !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), "more than 20 records") || !strings.Contains(err.Error(), "clock/t") {
			t.Errorf("%s: %v; want ErrInvalid, with the limit and the stream", name, err)
		}
	}
	unlimited := newCountdown(log)
	unlimited.Limit = -1
	if _, err := unlimited.Execute(t.Context(), c); err != nil {
		t.Error(err)
	}
}

func TestInvalidBoundaries(t *testing.T) {
	stream := es.Stream{Kind: "a", ID: "b"}
	tagged := []es.Filter{{Tags: []string{"t"}}}
	for name, b := range map[string]es.Boundary[total]{
		"no query":          {Stream: stream},
		"a filter of types": {Stream: stream, Query: []es.Filter{{Types: []string{"added"}}}},
		"an empty tag":      {Stream: stream, Query: []es.Filter{{Tags: []string{""}}}},
		"too many filters":  {Stream: stream, Query: make([]es.Filter, es.MaxConditions+1)},
		"no stream":         {Query: tagged},
		"a NUL in a kind":   {Stream: stream, Query: []es.Filter{{Tags: []string{"t"}, Kinds: []string{"\x00"}}}},
	} {
		log := newSpy()
		d := es.NewDecisions(log, tally{}, tallyCodec, func(do) es.Boundary[total] { return b })
		_, executing := d.Execute(t.Context(), add(1))
		_, loading := d.Load(t.Context(), add(1))
		for _, err := range []error{executing, loading} {
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("%s: %v; want ErrInvalid", name, err)
			}
		}
		if n := log.take(); len(n.Appends) != 0 || len(n.Alls) != 0 || n.Changed != 0 {
			t.Errorf("%s: the log was called: %+v", name, n)
		}
	}
	if _, err := newCountdown(new(es.Mem)).Execute(t.Context(), tick{Tag: "t"}, es.ExpectVersion(0)); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("ExpectVersion: %v; want ErrInvalid", err)
	}
}

// The log is restored from an older copy and grows again. A cached state must not survive.
func TestDecisionsAfterARestore(t *testing.T) {
	for _, test := range []struct {
		events int // after the restore
		load   bool
	}{{0, true}, {1, true}, {4, true}, {0, false}, {1, false}, {4, false}} {
		log := newSpy()
		d := newCountdown(log)
		for range 3 {
			if _, err := d.Execute(t.Context(), tick{Tag: "t"}); err != nil {
				t.Fatal(err)
			}
		}
		log.Log = new(es.Mem)
		other := newCountdown(log.Log)
		for range test.events {
			if _, err := other.Execute(t.Context(), tick{Tag: "t", From: 7}); err != nil {
				t.Fatal(err)
			}
		}
		if test.load {
			if at, err := d.Load(t.Context(), tick{Tag: "t"}); err != nil || at.State != -test.events {
				t.Errorf("Load after %d events: %+v, %v", test.events, at, err)
			}
		}
		if got, err := d.Execute(t.Context(), tick{Tag: "t"}); err != nil || got.State != -test.events-1 {
			t.Errorf("Execute after %d events: %+v, %v", test.events, got, err)
		}
	}
}

func TestClosedDecisions(t *testing.T) {
	d := enrolment.New(new(es.Mem))
	enrol(t, d, enrolment.Register{Student: "ann"})
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Execute(t.Context(), enrolment.Register{Student: "bob"}); !errors.Is(err, es.ErrClosed) {
		t.Errorf("%v; want ErrClosed", err)
	}
}
