package cause_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/thalo-go/es/internal/cause"
)

var errOther = errors.New("other")

func TestOf(t *testing.T) {
	live, cancel := context.WithCancel(t.Context())
	defer cancel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Hour))
	defer cancel()
	shutdown := errors.New("shutdown")
	stopped, stop := context.WithCancelCause(t.Context())
	stop(shutdown)
	plain := fmt.Errorf("read: %w", errOther)
	shared := fmt.Errorf("sqlite: append: %w: %w: %w", errOther, &fs.PathError{Op: "open", Err: errOther}, context.Canceled)
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		text string
		is   []error
		not  []error
		same bool
	}{
		"no error":                         {canceled, nil, "", nil, nil, true},
		"a live context":                   {live, shared, shared.Error(), []error{context.Canceled}, nil, true},
		"an error that is not a context's": {expired, plain, plain.Error(), []error{errOther}, []error{context.DeadlineExceeded}, true},
		"the context's own":                {canceled, shared, shared.Error(), []error{context.Canceled}, nil, true},
		"a deadline behind a shared cancellation": {
			expired, shared, "sqlite: append: other: open : other: context deadline exceeded", []error{context.DeadlineExceeded, errOther}, []error{context.Canceled}, false,
		},
		"a cancellation behind a deadline of the store's own": {
			canceled, fmt.Errorf("connect: %w", context.DeadlineExceeded), "connect: context canceled", []error{context.Canceled}, []error{context.DeadlineExceeded}, false,
		},
		"a cause": {stopped, context.Canceled, "shutdown", []error{context.Canceled, shutdown}, []error{context.DeadlineExceeded}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := cause.Of(test.ctx, test.err)
			if (err == test.err) != test.same {
				t.Errorf("it returned %#v", err)
			}
			if err == nil {
				return
			}
			if err.Error() != test.text {
				t.Errorf("its text is %q, want %q", err, test.text)
			}
			for _, target := range test.is {
				if !errors.Is(err, target) {
					t.Errorf("it is not %v", target)
				}
			}
			for _, target := range test.not {
				if errors.Is(err, target) {
					t.Errorf("it is %v", target)
				}
			}
			if errors.As(test.err, new(*fs.PathError)) != errors.As(err, new(*fs.PathError)) {
				t.Error("errors.As finds another error")
			}
		})
	}
}
