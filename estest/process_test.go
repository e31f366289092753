package estest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
	"github.com/thalo-go/es/projection"
)

// A task is begun, may be done, and is reminded of otherwise. Its commands are its events.
type task struct{ Done bool }

type taskRules struct{}

var errDone = errors.New("it is done already")

func (taskRules) Decide(s task, command string) ([]string, error) {
	switch {
	case command == "done" && s.Done:
		return nil, errDone
	case command == "remind" && s.Done:
		return nil, nil
	}
	return []string{command}, nil
}

func (taskRules) Evolve(s task, event string) task { return task{s.Done || event == "done"} }

var taskCodec = es.CodecFunc(
	func(e string) (es.Record, error) { return es.Record{Type: e}, nil },
	func(r es.Record) (string, error) { return r.Type, nil })

func reminder(tasks *es.Repo[task, string, string]) projection.Reaction {
	return projection.Reaction{Name: "reminder", From: projection.Head(), Filter: es.Filter{Kinds: []string{"task"}, Types: []string{"begun", "remind"}},
		Due: func(r es.Record) (time.Time, error) { return r.Time.Add(time.Hour), nil },
		Handle: func(ctx context.Context, r es.Record) error {
			_, err := tasks.Execute(ctx, r.Stream.ID, "remind", es.Step("remind"))
			return err
		}}
}

func TestProcess(t *testing.T) {
	p := estest.NewProcess(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	tasks := estest.Add(p, "task", taskRules{}, taskCodec)
	notes := estest.Add(p, "note", taskRules{}, taskCodec)
	tasks.Given("early", "begun")
	p.React(reminder(tasks.Repo), projection.Reaction{Name: "noting", From: projection.Beginning(), Filter: es.Filter{Types: []string{"remind"}},
		Handle: func(ctx context.Context, r es.Record) error {
			_, err := notes.Repo.Execute(ctx, r.Stream.ID, r.Time.Format(time.TimeOnly), es.Step("note"))
			return err
		}})
	tasks.Given("1", "begun")
	p.Advance(59 * time.Minute)
	tasks.Then("1")
	tasks.ThenCommands("1")
	p.Advance(time.Minute)
	tasks.ThenCommands("1", "remind")
	tasks.Then("1", "remind")
	notes.Then("1", "01:00:00")
	tasks.Then("early") // the reaction began behind it
	p.Advance(3*time.Hour + time.Minute)
	tasks.Then("1", "remind", "remind", "remind")
	notes.Then("1", "02:00:00", "03:00:00", "04:00:00") // each at its time
	if err := tasks.When("1", "done"); err != nil {
		t.Fatal(err)
	}
	tasks.Then("1", "done")
	tasks.ThenCommands("1")
	if err := tasks.When("1", "done"); !errors.Is(err, errDone) {
		t.Errorf("the rules refuse with %v", err)
	}
	p.Advance(10 * time.Hour)
	tasks.ThenCommands("1", "remind") // nothing to do
	tasks.Then("1")
	if head, err := es.Head(t.Context(), p.Store()); err != nil || head == 0 {
		t.Errorf("the log ends at %d, %v", head, err)
	}
}

func TestProcessFails(t *testing.T) {
	for name, test := range map[string]struct {
		want []string
		then func(p *estest.Process, a *estest.Participant[task, string, string])
	}{
		"with other events":     {[]string{"task/1", "begun"}, func(_ *estest.Process, a *estest.Participant[task, string, string]) { a.Then("1") }},
		"with other commands":   {[]string{"task/1", "remind"}, func(_ *estest.Process, a *estest.Participant[task, string, string]) { a.ThenCommands("1", "remind") }},
		"with a clock set back": {[]string{"backwards"}, func(p *estest.Process, _ *estest.Participant[task, string, string]) { p.Advance(-1) }},
		"with a failing reaction": {[]string{"broken"}, func(p *estest.Process, _ *estest.Participant[task, string, string]) {
			p.React(broken(projection.Beginning()))
		}},
		"with a reaction unplaced": {[]string{"From"}, func(p *estest.Process, _ *estest.Participant[task, string, string]) {
			p.React(broken(projection.Start{}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			recorder.Fails(t, func(t testing.TB) {
				t.Helper()
				p := estest.NewProcess(t, time.Time{})
				a := estest.Add(p, "task", taskRules{}, taskCodec)
				if err := a.When("1", "begun"); err != nil {
					t.Fatal(err)
				}
				test.then(p, a)
			}, test.want...)
		})
	}
}

func broken(from projection.Start) projection.Reaction {
	return projection.Reaction{Name: "broken", From: from, Handle: func(context.Context, es.Record) error { return errors.New("it does not work") }}
}
