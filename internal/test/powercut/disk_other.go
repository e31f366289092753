//go:build !linux

package powercut

import (
	"context"
	"errors"
	"runtime"
)

var errSystem = errors.New("power cuts need the dynamic linker of Linux, and this is " + runtime.GOOS)

// New returns an error: the library cannot be built here.
func New(context.Context, string) (*Disk, error) { return nil, errSystem }

// Attach returns an error.
func (d *Disk) Attach(string) error { return errSystem }

// Cut returns an error.
func (d *Disk) Cut() error { return errSystem }
