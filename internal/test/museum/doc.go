// Package museum has a test for each known failure mode of other event stores. It shows that the failure does not occur
// here.
//
// Each failure is a file, whose comment describes the failure and the reason why it cannot occur here. A check looks
// for the failure. It runs against the stores of this module, where it must find nothing, and as a control against a
// small program with the bug, where it must find it; this proves that the check can fail. The programs with a bug are
// plausible ones, not caricatures.
//
// The package contains only tests; docs/failure-modes.md describes the failures.
package museum
