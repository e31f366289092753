// Package limits tests what becomes of those who ask for what cannot be, or for very much: settings that are wrong, over the whole module,
// and the limits of resources. An error must name the thing and the remedy; memory must be bounded; nothing may be lost.
//
// The tests are all there is. ES_TEST_LARGE=1 makes the large ones as large as they are meant to be; see make large.
package limits
