package museum_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/thalo-go/es"
)

// The only seat of a course goes to one student: a rule over records with a tag, whatever their streams.

// seatTaken is the record that a student has the seat of a course.
func seatTaken(course, student string) es.Record {
	return es.Record{Type: "taken", Data: []byte(student), Tags: []string{"course:" + course}}
}

func seatOf(course string) []es.Filter { return []es.Filter{{Tags: []string{"course:" + course}}} }

// take takes the seat unless it was taken after a position.
func take(log es.Store, course, student string, after es.Position) error {
	_, err := log.Append(context.Background(), es.Append{
		Stream: es.Stream{Kind: "enrolment", ID: course + " " + student}, Expected: es.AnyVersion,
		Unless: es.Condition{Match: seatOf(course), After: after}, Events: []es.Record{seatTaken(course, student)},
	})
	return err
}

// oneHasTheSeat returns an error unless one of the students has it.
func oneHasTheSeat(students []string) error {
	if len(students) != 1 {
		return fmt.Errorf("%d students have the only seat: %v", len(students), students)
	}
	return nil
}

// studentsOf returns who has the seat.
func studentsOf(t testing.TB, log es.Log, course string) (students []string) {
	t.Helper()
	for r, err := range log.All(t.Context(), 0, seatOf(course)[0]) {
		must(t, err)
		students = append(students, string(r.Data))
	}
	return students
}

// tagsTextbook is a table of tagged records with positions of a sequence, as most stores with conditions have it.
type tagsTextbook struct{ pool *pgxpool.Pool }

func newTagsTextbook(t testing.TB) *tagsTextbook {
	t.Helper()
	url := onPostgres(t).url
	exec(t, url, "create table tagged (position bigserial primary key, tag text not null, student text not null)")
	return &tagsTextbook{openPool(t, url)}
}

const (
	insertTagged = "insert into tagged (tag, student) values ($1, $2)"
	insertUnless = "insert into tagged (tag, student) select $1, $2 where not exists (select from tagged where tag = $1 and position > $3)"
)

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (b *tagsTextbook) number(t testing.TB, on querier, query string, args ...any) (n int64) {
	t.Helper()
	must(t, on.QueryRow(t.Context(), query, args...).Scan(&n))
	return n
}

// students returns who has the seat of the course go.
func (b *tagsTextbook) students(t testing.TB) []string {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), "select student from tagged where tag = 'go'")
	must(t, err)
	students, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return students
}

// seatRules decide on the seat. The state is who has it.
type seatRules struct{}

type seatCommand struct{ Course, Student string }

var errTaken = errors.New("the seat is taken")

func (seatRules) Decide(has string, c seatCommand) ([]seatCommand, error) {
	if has != "" {
		return nil, errTaken
	}
	return []seatCommand{c}, nil
}

func (seatRules) Evolve(_ string, e seatCommand) string { return e.Student }

func seatDecisions(log es.Log) *es.Decisions[string, seatCommand, seatCommand] {
	codec := es.CodecFunc(
		func(e seatCommand) (es.Record, error) { return seatTaken(e.Course, e.Student), nil },
		func(r es.Record) (seatCommand, error) { return seatCommand{Student: string(r.Data)}, nil })
	return es.NewDecisions(log, seatRules{}, codec, func(c seatCommand) es.Boundary[string] {
		return es.Boundary[string]{Query: seatOf(c.Course), Stream: es.Stream{Kind: "enrolment", ID: c.Course + " " + c.Student}}
	})
}

// intruded is a log on which something else happens before the call of a number.
type intruded struct {
	es.Log
	calls, at int
	intrude   func()
}

func (l *intruded) call() {
	if l.calls++; l.calls == l.at {
		l.intrude()
	}
}

func (l *intruded) Changed(ctx context.Context, after es.Position) (es.Position, error) {
	l.call()
	return l.Log.Changed(ctx, after)
}

func (l *intruded) All(ctx context.Context, after es.Position, filter es.Filter) iter.Seq2[es.Record, error] {
	return func(yield func(es.Record, error) bool) {
		l.call()
		l.Log.All(ctx, after, filter)(yield)
	}
}

func (l *intruded) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	l.call()
	return l.Log.Append(ctx, appends...)
}
