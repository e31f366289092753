// Package baseline has the code that a good engineer would write instead of the toolkit. It is the other side of every ratio in package
// bench.
//
// Each baseline is as fast as its approach allows, and its comment says what it leaves out. A ratio against an unrealistic baseline means
// nothing. If you find a faster version of the same approach, change the baseline, even if a figure then misses its goal.
//
// Baselines use only the types of package es, so that both sides of a comparison receive the same values.
package baseline

import "errors"

// ErrConflict means that the stream already has an event of that version.
var ErrConflict = errors.New("baseline: conflict")
