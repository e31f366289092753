// Package enrolment is the rules of courses and their students: a course has a capacity, and a student takes at most five courses.
//
// A subscription concerns a course and a student, so no stream of one of them can decide about it. The rules decide over tags:
// [New] returns es.Decisions, whose boundaries say which records each command rests on.
package enrolment

import "github.com/thalo-go/es"

// MaxCourses is the number of courses that a student may take.
const MaxCourses = 5

// Command is one of Define, ChangeCapacity, Register, Subscribe and Unsubscribe.
type Command interface{ boundary() es.Boundary[State] }

// Commands.
type (
	// Define creates a course.
	Define struct {
		Course   string
		Capacity int // places, at least 1
	}

	// ChangeCapacity changes the number of places. It must not be below the number of students.
	ChangeCapacity struct {
		Course   string
		Capacity int
	}

	// Register admits a student.
	Register struct{ Student string }

	// Subscribe gives a student a place in a course.
	Subscribe struct{ Course, Student string }

	// Unsubscribe gives the place back.
	Unsubscribe struct{ Course, Student string }
)

// Event is one of Defined, CapacityChanged, Registered, Subscribed and Unsubscribed.
type Event interface{ tags() []string }

// Events.
type (
	// Defined says that there is a course.
	Defined struct {
		Course   string
		Capacity int
	}

	// CapacityChanged says how many places a course has from now on.
	CapacityChanged struct {
		Course   string
		Capacity int
	}

	// Registered says that there is a student.
	Registered struct{ Student string }

	// Subscribed says that a student has a place in a course.
	Subscribed struct{ Course, Student string }

	// Unsubscribed says that the place is free again.
	Unsubscribed struct{ Course, Student string }
)

// CourseTag is the tag of the events about a course.
func CourseTag(id string) string { return "course:" + id }

// StudentTag is the tag of the events about a student.
func StudentTag(id string) string { return "student:" + id }

func (e Defined) tags() []string         { return []string{CourseTag(e.Course)} }
func (e CapacityChanged) tags() []string { return []string{CourseTag(e.Course)} }
func (e Registered) tags() []string      { return []string{StudentTag(e.Student)} }
func (e Subscribed) tags() []string      { return []string{CourseTag(e.Course), StudentTag(e.Student)} }
func (e Unsubscribed) tags() []string    { return []string{CourseTag(e.Course), StudentTag(e.Student)} }

// Codec stores the events as JSON, with their tags.
var Codec = es.JSON(map[string]Event{
	"course.defined":          Defined{},
	"course.capacity_changed": CapacityChanged{},
	"student.registered":      Registered{},
	"student.subscribed":      Subscribed{},
	"student.unsubscribed":    Unsubscribed{},
}).Tag(Event.tags)

// State is what a command is decided on: the course and the student that it names, or one of them.
type State struct {
	Course, Student string
	Capacity, Taken int  // of the course; without capacity there is no such course
	Registered      bool // the student
	Courses         int  // that the student takes
	Subscribed      bool // the student to the course
}

// Each boundary selects no more than its decision needs: a subscription does not conflict with a definition.
func (c Define) boundary() es.Boundary[State] {
	return about(State{Course: c.Course}, course(c.Course), filter(CourseTag(c.Course), "course.defined"))
}

func (c ChangeCapacity) boundary() es.Boundary[State] {
	return about(State{Course: c.Course}, course(c.Course), filter(CourseTag(c.Course)))
}

func (c Register) boundary() es.Boundary[State] {
	return about(State{Student: c.Student}, es.Stream{Kind: "student", ID: c.Student}, filter(StudentTag(c.Student), "student.registered"))
}

func (c Subscribe) boundary() es.Boundary[State] {
	return about(State{Course: c.Course, Student: c.Student}, course(c.Course), filter(CourseTag(c.Course)), filter(StudentTag(c.Student)))
}

func (c Unsubscribe) boundary() es.Boundary[State] {
	both := es.Filter{Types: []string{"student.subscribed", "student.unsubscribed"}, Tags: []string{CourseTag(c.Course), StudentTag(c.Student)}}
	return about(State{Course: c.Course, Student: c.Student}, course(c.Course), both)
}

func about(initial State, stream es.Stream, query ...es.Filter) es.Boundary[State] {
	return es.Boundary[State]{Initial: initial, Query: query, Stream: stream}
}

func course(id string) es.Stream { return es.Stream{Kind: "course", ID: id} }

func filter(tag string, types ...string) es.Filter {
	return es.Filter{Types: types, Tags: []string{tag}}
}

// Rules implements es.Aggregate.
type Rules struct{}

// Decide checks a command against the state.
func (Rules) Decide(s State, c Command) ([]Event, error) {
	switch c := c.(type) {
	case Define:
		switch {
		case c.Capacity < 1:
			return nil, es.Invariant("INVALID_CAPACITY", "a course needs a place: got %d", c.Capacity)
		case s.Capacity > 0:
			return nil, es.Invariant("COURSE_EXISTS", "there is a course %s already", c.Course)
		}
		return []Event{Defined(c)}, nil
	case ChangeCapacity:
		switch {
		case s.Capacity == 0:
			return nil, noCourse(c.Course)
		case c.Capacity < max(1, s.Taken):
			return nil, es.Invariant("INVALID_CAPACITY", "%s has %d students: %d places are too few", c.Course, s.Taken, c.Capacity)
		case c.Capacity == s.Capacity:
			return nil, nil
		}
		return []Event{CapacityChanged(c)}, nil
	case Register:
		if s.Registered {
			return nil, es.Invariant("STUDENT_EXISTS", "%s is registered already", c.Student)
		}
		return []Event{Registered(c)}, nil
	case Subscribe:
		return subscribe(s, c)
	case Unsubscribe:
		if !s.Subscribed {
			return nil, nil
		}
		return []Event{Unsubscribed(c)}, nil
	}
	return nil, es.Invariant("UNKNOWN_COMMAND", "%T", c)
}

func subscribe(s State, c Subscribe) ([]Event, error) {
	switch {
	case s.Capacity == 0:
		return nil, noCourse(c.Course)
	case !s.Registered:
		return nil, es.Invariant("NO_STUDENT", "%s is not registered", c.Student)
	case s.Subscribed:
		return nil, nil
	case s.Taken >= s.Capacity:
		return nil, es.Invariant("COURSE_FULL", "all %d places of %s are taken", s.Capacity, c.Course)
	case s.Courses >= MaxCourses:
		return nil, es.Invariant("TOO_MANY_COURSES", "%s takes %d courses already", c.Student, s.Courses)
	}
	return []Event{Subscribed(c)}, nil
}

func noCourse(id string) error { return es.Invariant("NO_COURSE", "there is no course %s", id) }

// Evolve applies an event. It may be about another course of the student, or another student of the course.
func (Rules) Evolve(s State, e Event) State {
	switch e := e.(type) {
	case Defined:
		s.Capacity = e.Capacity
	case CapacityChanged:
		s.Capacity = e.Capacity
	case Registered:
		s.Registered = true
	case Subscribed:
		s.count(e.Course, e.Student, 1)
	case Unsubscribed:
		s.count(e.Course, e.Student, -1)
	}
	return s
}

func (s *State) count(course, student string, n int) {
	if course == s.Course {
		s.Taken += n
	}
	if student == s.Student {
		s.Courses += n
	}
	if course == s.Course && student == s.Student {
		s.Subscribed = n > 0
	}
}

// Boundary returns what a command is decided on.
func Boundary(c Command) es.Boundary[State] { return c.boundary() }

// New returns the decisions on a log.
func New(log es.Log) *es.Decisions[State, Command, Event] {
	return es.NewDecisions(log, Rules{}, Codec, Boundary)
}
