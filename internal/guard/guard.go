// Package guard turns panics of the user's code into errors.
package guard

import (
	"runtime/debug"

	"github.com/thalo-go/es"
)

// Call calls f and returns its error, or an [es.PanicError] if it panics.
func Call(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &es.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
