// Package museum shows the failures that are known of other event stores, one test for each, and that they do not happen here.
//
// Each exhibit is a file. Its comment says in two lines what the failure is and why it cannot happen here. A check looks for the failure;
// it is run against the stores of this module and finds nothing, and then as a control against something small that has the bug,
// where it must find it. The small things are not caricatures: each is what one would write on a good day.
//
// The tests are all there is; docs/failure-modes.md describes the failures.
package museum
