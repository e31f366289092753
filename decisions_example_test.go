package es_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/courses/enrolment"
)

// A subscription concerns a course and a student. The boundary of the command selects the records of both by their tags.
func ExampleNewDecisions() {
	ctx := context.Background()
	courses := es.NewDecisions(new(es.Mem), enrolment.Rules{}, enrolment.Codec, enrolment.Boundary)
	defer courses.Close(context.Background())
	for _, c := range []enrolment.Command{
		enrolment.Define{Course: "go", Capacity: 1},
		enrolment.Register{Student: "ann"},
		enrolment.Register{Student: "bob"},
	} {
		must(courses.Execute(ctx, c))
	}
	result, err := courses.Execute(ctx, enrolment.Subscribe{Course: "go", Student: "ann"}, es.CommandID("request-1"))
	fmt.Println(result.State.Capacity-result.State.Taken, "places left", err)

	_, err = courses.Execute(ctx, enrolment.Subscribe{Course: "go", Student: "bob"})
	fmt.Println(err)
	// Output:
	// 0 places left <nil>
	// COURSE_FULL: all 1 places of go are taken
}

// An address is taken once: the append fails if any record has its tag.
func ExampleCondition() {
	ctx := context.Background()
	var store es.Store = new(es.Mem)
	register := func(user, email string) error {
		tags := []string{"email:" + email}
		_, err := store.Append(ctx, es.Append{
			Stream: es.Stream{Kind: "user", ID: user},
			Events: []es.Record{{Type: "registered", Tags: tags}},
			Unless: es.Condition{Match: []es.Filter{{Tags: tags}}},
		})
		if conflict := new(es.ConflictError); errors.As(err, &conflict) && len(conflict.Unless.Match) > 0 {
			return es.Invariant("EMAIL_TAKEN", "%s has an account", email)
		}
		return err
	}
	fmt.Println(register("ann", "ann@example.com"))
	fmt.Println(register("another", "ann@example.com"))
	// Output:
	// <nil>
	// EMAIL_TAKEN: ann@example.com has an account
}
