package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

const (
	racers   = 64
	capacity = 30
	offered  = enrolment.MaxCourses + 1 // so that each student asks for one course too many
)

// stress lets 64 students race for the places of some new courses, and counts what the log has. Each racer has decisions of its own, as if it were a process.
func stress(ctx context.Context, out io.Writer, log es.Log) error {
	mark := rand.Text()[:8] // so that it can run again on the same store
	name := func(what string, n int) string { return fmt.Sprintf("%s-%s-%d", what, mark, n) }
	after, err := es.Head(ctx, log)
	if err != nil {
		return err
	}
	desk := enrolment.New(log)
	for n := range offered {
		if _, err := desk.Execute(ctx, enrolment.Define{Course: name("course", n), Capacity: capacity}); err != nil {
			return err
		}
	}
	group, racing := errgroup.WithContext(ctx)
	for n := range racers {
		group.Go(func() error {
			d := enrolment.New(log)
			d.Retries = 10_000 // students of one course conflict, and each conflict means that another one got a place
			student := name("student", n)
			if _, err := d.Execute(racing, enrolment.Register{Student: student}); err != nil {
				return err
			}
			for c := range offered {
				course := name("course", (c+n)%offered)
				_, err := d.Execute(racing, enrolment.Subscribe{Course: course, Student: student}, es.CommandID(student))
				if refusal := new(es.InvariantError); err != nil && !errors.As(err, &refusal) {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return check(ctx, out, log, after)
}

// check returns an error if a course has more students than places, or a student too many courses, by the records after a position.
func check(ctx context.Context, out io.Writer, log es.Log, after es.Position) error {
	taken := make(map[string]int) // by tag
	for r, err := range log.All(ctx, after, es.Filter{Types: []string{"student.subscribed"}}) {
		if err != nil {
			return err
		}
		for _, tag := range r.Tags {
			taken[tag]++
		}
	}
	courses, full, most := 0, 0, 0
	for tag, n := range taken {
		kind, limit := "student", enrolment.MaxCourses
		if strings.HasPrefix(tag, enrolment.CourseTag("")) {
			kind, limit = "course", capacity
			courses++
		}
		if n > limit {
			return fmt.Errorf("%s %s has %d subscriptions: the limit is %d", kind, tag, n, limit)
		}
		if kind == "student" {
			most = max(most, n)
		} else if n == limit {
			full++
		}
	}
	fmt.Fprintf(out, "%d racers: %d of %d courses are full with %d places, and no student takes more than %d courses\n", racers, full, courses, capacity, most)
	return nil
}
