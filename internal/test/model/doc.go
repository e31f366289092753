// Package model runs what a program may do to stores and projections, at random, and compares it with the simplest thing that
// keeps the promises: es.Mem for a store, a list of versions for a read model. When the two differ, rapid finds a short way to it.
//
// The tests are all there is. The Repo has a model of its own, in package es.
package model
