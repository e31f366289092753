//go:build !linux && !darwin

package testserver

import (
	"errors"
	"os/exec"
)

const supported = false

var errUnsupported = errors.New("servers can be started on Linux and macOS only: set ES_TEST_POSTGRES to the URL of one")

func runAsServerUser(*exec.Cmd) error           { return errUnsupported }
func chown(string) error                        { return nil }
func reachable(string) error                    { return nil }
func sendSignal(int, signal) error              { return errUnsupported }
func childrenOf(int) ([]int, error)             { return nil, errUnsupported }
func alive([]int) []int                         { return nil }
func lock(string) (unlock func(), err error)    { return nil, errUnsupported }
func tryLock(string) (unlock func(), err error) { return nil, errUnsupported }
