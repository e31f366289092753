// Package cause replaces the error of a context that callers share by that of the caller's own context.
//
// Work that callers share has a context of its own, which is canceled when the last of them leaves. Its error would say that the context was
// canceled, although the deadline of the caller had passed. And a context canceled with a cause has an error that does not have it.
// Each exported method that takes a context returns its errors through [Of].
package cause

import (
	"context"
	"errors"
	"strings"
)

// Of returns an error as the caller whose context is ctx must see it. An error of any context becomes the error of ctx, together with
// the cause of its end, if ctx has ended. Everything else that the error wraps stays.
func Of(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	canceled, expired := errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded)
	if !canceled && !expired {
		return err
	}
	ended, reason := ctx.Err(), context.Cause(ctx)
	if canceled == errors.Is(ended, context.Canceled) && expired == errors.Is(ended, context.DeadlineExceeded) && errors.Is(err, reason) {
		return err
	}
	return &endedError{err: err, ended: ended, reason: reason}
}

// endedError is an error without the contexts' errors that it wraps, and with that of another context.
type endedError struct{ err, ended, reason error }

func (e *endedError) Error() string {
	text := e.err.Error()
	for _, other := range []error{context.Canceled, context.DeadlineExceeded} {
		text = strings.ReplaceAll(text, other.Error(), e.reason.Error())
	}
	return text
}

// Is reports whether the error without the contexts' errors is target.
func (e *endedError) Is(target error) bool {
	return target != context.Canceled && target != context.DeadlineExceeded && errors.Is(e.err, target)
}

// As finds target in the error.
func (e *endedError) As(target any) bool { return errors.As(e.err, target) }

// Unwrap returns the error of the caller's context and its cause.
func (e *endedError) Unwrap() []error { return []error{e.ended, e.reason} }

// Set replaces an error as [Of] does. It is for defer.
func Set(ctx context.Context, err *error) {
	if *err != nil {
		*err = Of(ctx, *err)
	}
}
