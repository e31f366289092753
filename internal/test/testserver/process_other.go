//go:build !linux && !darwin

package testserver

import (
	"errors"
	"os/exec"
)

const supported = false

var errUnsupported = errors.New("servers are started on Linux and macOS only: set ES_TEST_POSTGRES to the URL of one")

func demote(*exec.Cmd) error                 { return errUnsupported }
func give(string) error                      { return nil }
func reachable(string) error                 { return nil }
func sendSignal(int, signal) error           { return errUnsupported }
func childrenOf(int) ([]int, error)          { return nil, errUnsupported }
func alive([]int) []int                      { return nil }
func lock(string) (unlock func(), err error) { return nil, errUnsupported }
