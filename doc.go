// Package es provides event sourcing: pure rules, a Repo that runs them, and the contract of the stores that keep events.
//
// A program writes two pure functions, Decide and Evolve, as an [Aggregate]. A [Repo] loads the state, lets the rules
// decide on a command, appends the events, and retries on conflict:
//
//	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
//	result, err := accounts.Execute(ctx, "ann", account.Deposit{Amount: 50_00}, es.CommandID("salary-2026-11"))
//
// A [Store] keeps events in streams, and a [Log] also in one commit order. [Mem] keeps them in memory; packages sqlite
// and postgres keep them in a database. Package projection builds read models from a log, and package kafka publishes it.
package es
