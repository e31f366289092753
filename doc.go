// Package es is event sourcing for things that must not go wrong, such as money.
//
// You write two pure functions, Decide and Evolve, as an [Aggregate]; a [Repo] does the rest: loading, retrying, ordering, storing.
// The events are kept in a [Store] or [Log]: [Mem] here, packages sqlite and postgres beside it.
package es
