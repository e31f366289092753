package es_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/thalo-go/es"
)

type task = func(context.Context) error

// endless returns a task that runs until its context is done, and then for a while. It adds its name to ended when it returns.
func endless(name string, ended *[]string, after time.Duration, err func(context.Context) error) task {
	return func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(after)
		*ended = append(*ended, name)
		return err(ctx)
	}
}

func TestRunEndsTasksInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var ended []string
		canceled := func(ctx context.Context) error { return fmt.Errorf("wait: %w", ctx.Err()) }
		err := es.Run(ctx,
			endless("relay", &ended, 0, canceled),
			func(context.Context) error { return nil }, // has done its work
			endless("projection", &ended, time.Second, canceled),
			endless("server", &ended, time.Hour, func(context.Context) error { return nil }),
		)
		if err != nil || !slices.Equal(ended, []string{"server", "projection", "relay"}) {
			t.Errorf("Run returned %v after the tasks %v, want no error and the reverse order", err, ended)
		}
	})
}

func TestRunReturnsTheFirstError(t *testing.T) {
	full, later := errors.New("disk full"), errors.New("requests were cut off")
	fails := func(err error) task { return func(context.Context) error { return err } }
	for _, test := range []struct {
		name  string
		tasks func(ended *[]string) []task
		want  error
	}{
		{"of a task", func(ended *[]string) []task {
			return []task{endless("a", ended, 0, context.Cause), fails(full), endless("b", ended, 0, context.Cause)}
		}, full},
		{"not that of a task that was ended by it", func(ended *[]string) []task {
			return []task{endless("a", ended, 0, context.Cause), fails(full), endless("b", ended, 0, func(context.Context) error { return later })}
		}, full},
		{"also of the end of a context of its own", func(ended *[]string) []task {
			return []task{endless("a", ended, 0, context.Cause), endless("b", ended, 0, context.Cause), fails(context.Canceled)}
		}, context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended []string
				if err := es.Run(t.Context(), test.tasks(&ended)...); err != test.want {
					t.Errorf("Run returned %v, want %v", err, test.want)
				}
				if !slices.Equal(ended, []string{"b", "a"}) {
					t.Errorf("the other tasks ended as %v, want b and a", ended)
				}
			})
		})
	}
	t.Run("while the tasks are ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var ended []string
			err := es.Run(ctx, endless("a", &ended, 0, context.Cause), endless("b", &ended, 0, func(context.Context) error { return later }))
			if !errors.Is(err, later) || !slices.Equal(ended, []string{"b", "a"}) {
				t.Errorf("Run returned %v after the tasks %v, want %v", err, ended, later)
			}
		})
	})
}

func TestRunWithoutTasks(t *testing.T) {
	if err := es.Run(t.Context()); err != nil {
		t.Error(err)
	}
	ran := false
	err := es.Run(t.Context(), func(context.Context) error { ran = true; return nil }, nil)
	if !errors.Is(err, es.ErrInvalid) || err.Error() != "es: invalid: task 2 of 2 is nil" || ran {
		t.Errorf("Run returned %v, and ran the other task: %v", err, ran)
	}
}

func TestRunPanicsAfterTheOthersHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		defer func() {
			p, ok := recover().(*es.PanicError)
			if !ok || p.Value != errTilt || len(p.Stack) == 0 || !slices.Equal(ended, []string{"a"}) {
				t.Errorf("Run panicked with %v after the tasks %v", p, ended)
			}
		}()
		err := es.Run(t.Context(), endless("a", &ended, 0, context.Cause), func(context.Context) error { panic(errTilt) })
		t.Errorf("Run returned %v", err)
	})
}

// The contexts of tasks have the values of ctx.
func TestRunPassesValues(t *testing.T) {
	type key struct{}
	err := es.Run(context.WithValue(t.Context(), key{}, "ann"), func(ctx context.Context) error {
		if ctx.Value(key{}) != "ann" {
			return errors.New("lost")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
