package es

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Run runs the tasks of a program, such as relays, projections and servers, each in a goroutine, until ctx is done or one of them
// fails. A task that returns nil has done its work, and the others go on.
//
// Run then ends the tasks in reverse order. It cancels the context of the last one, waits until that has returned, and goes on with
// the one before it. So list a task behind those that it needs, and a server last: it finishes its requests while the projections
// that they wait for still run. A task that ignores its context delays the end.
//
// Run returns the first error that is not the end of a context, or nil. A nil task is an error that wraps [ErrInvalid], and nothing
// runs. If a task panics, Run ends the others and panics with a [*PanicError].
func Run(ctx context.Context, tasks ...func(ctx context.Context) error) error {
	if i := slices.IndexFunc(tasks, func(task func(context.Context) error) bool { return task == nil }); i >= 0 {
		return invalid("task %d of %d is nil", i+1, len(tasks))
	}
	failed, fail := context.WithCancel(ctx)
	defer fail()
	var all errgroup.Group // its error is the first
	var panicked atomic.Pointer[PanicError]
	type running struct {
		end      context.CancelFunc
		returned chan struct{}
	}
	var started []running
	for _, task := range tasks {
		own, end := context.WithCancel(context.WithoutCancel(ctx)) // the end of ctx would end all at once
		t := running{end, make(chan struct{})}
		started = append(started, t)
		all.Go(func() (err error) {
			defer close(t.returned)
			if p := protect(func() { err = task(own) }); p != nil {
				panicked.Store(p)
				err = p
			}
			if own.Err() != nil && errors.Is(err, context.Canceled) {
				return nil
			}
			if err != nil {
				fail()
			}
			return err
		})
	}
	go func() { // ends if all tasks have
		for _, t := range started {
			<-t.returned
		}
		fail()
	}()
	<-failed.Done()
	for _, t := range slices.Backward(started) {
		t.end()
		<-t.returned
	}
	err := all.Wait()
	if p := panicked.Load(); p != nil {
		panic(p)
	}
	return err
}
