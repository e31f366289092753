// Package baseline is what a good engineer would write instead of the toolkit: the other side of every ratio in package bench.
//
// Each is tuned as far as its own idea goes, and its comment says what it leaves out. A ratio against a baseline that nobody would
// write says nothing, so whoever finds a faster one within the same idea should put it here, also when a figure falls short by it.
//
// Of package es they use the nouns alone, so that both sides of a comparison are handed the same values.
package baseline

import "errors"

// ErrConflict says that the stream had an event of that version already.
var ErrConflict = errors.New("baseline: conflict")
