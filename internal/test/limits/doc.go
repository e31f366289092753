// Package limits tests invalid settings, over the whole module, and very large numbers and sizes. An error must name
// its subject and the remedy; memory must be bounded; nothing may be lost.
//
// The package contains only tests. ES_TEST_LARGE=1 runs the large ones at full size; see make large.
package limits
