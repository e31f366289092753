// Package model runs random operations on stores and projections, and compares the results with the simplest
// implementation of the guarantees: es.Mem for a store, a list of versions for a read model. When the two differ, rapid
// finds a short sequence of operations that shows it.
//
// The package contains only tests. The Repo has its own model, in package es.
package model
