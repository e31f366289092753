// Courses defines courses and subscribes students to them. Its rules span both, so it decides over tags.
//
//	go run ./examples/courses courses.db define go 30
//	go run ./examples/courses courses.db register ann
//	go run ./examples/courses courses.db subscribe go ann
//	go run ./examples/courses courses.db unsubscribe go ann
//	go run ./examples/courses courses.db capacity go 40
//	go run ./examples/courses mem: stress
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"

	"github.com/thalo-go/es/examples/courses/enrolment"
	"github.com/thalo-go/es/stores"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: courses STORE COMMAND\nSTORE is %s\n%v\n", stores.Usage, errUsage)
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var errUsage = errors.New("commands: define COURSE CAPACITY, capacity COURSE CAPACITY, register STUDENT, subscribe COURSE STUDENT, unsubscribe COURSE STUDENT, stress")

// run opens the store that the first argument names and runs the command in the others.
func run(ctx context.Context, out io.Writer, args []string) (err error) {
	if len(args) < 2 {
		return errUsage
	}
	store, err := stores.Config{Logger: slog.Default()}.Open(ctx, args[0]) // it says what it waits for
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if args[1] == "stress" && len(args) == 2 {
		return stress(ctx, out, store)
	}
	c, err := parse(args[1:])
	if err != nil {
		return err
	}
	result, err := enrolment.New(store).Execute(ctx, c)
	if err != nil {
		return err
	}
	for _, e := range result.Events {
		fmt.Fprintf(out, "%T %+v\n", e, e)
	}
	if len(result.Events) == 0 {
		fmt.Fprintln(out, "nothing to do")
	}
	return nil
}

func parse(args []string) (enrolment.Command, error) {
	name, args := args[0], args[1:]
	switch {
	case name == "register" && len(args) == 1:
		return enrolment.Register{Student: args[0]}, nil
	case len(args) != 2:
	case name == "subscribe":
		return enrolment.Subscribe{Course: args[0], Student: args[1]}, nil
	case name == "unsubscribe":
		return enrolment.Unsubscribe{Course: args[0], Student: args[1]}, nil
	case name == "define", name == "capacity":
		capacity, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, fmt.Errorf("capacity %q: %w", args[1], err)
		}
		if name == "define" {
			return enrolment.Define{Course: args[0], Capacity: capacity}, nil
		}
		return enrolment.ChangeCapacity{Course: args[0], Capacity: capacity}, nil
	}
	return nil, errUsage
}
