// Package bench says what the toolkit costs, side by side with what one would write instead.
//
//	go test -run '^$' -bench . ./bench                      everything that needs no set-up
//	go test -run '^$' -bench Append/store=sqlite ./bench    a part; the names are in benchstat's key=value form
//	go run ./bench/figures                                  the named figures, each against its goal
//
// # What is measured
//
//   - Append: writers that append one event of 120 bytes at a time, each as soon as the one before is durable, to streams of ten events
//     with scattered ids. Batch and payload vary.
//   - Execute: commands on bank accounts. warm: each caller has an account of his own, which is cached. cold: accounts of ten events, none
//     of them cached. hot: all callers on one account.
//   - Load: the state of one account, not cached, with and without a snapshot.
//   - All: a whole log, record by record.
//   - Follow: the delay from the return of Append to the follower's loop body, in the same process and in another.
//
// Stores: mem is es.Mem, which keeps nothing and syncs nothing; it shows what the toolkit itself costs. sqlite is package sqlite on a file
// in the folder for temporary files. If that is in memory, the numbers say nothing about a disk; set TMPDIR to a folder on one.
//
// # Against what
//
// The metric x-textbook is our rate over that of the baseline, both measured in the same run in turns of a fraction of a second; it is the
// median of the ratios turn by turn. 2 means twice as fast. Package baseline has the baselines and says what each leaves out. For sqlite:
//
//   - Append: one INSERT each, committed by itself, whose unique index is the version check.
//   - Execute: load the whole stream, decide, append by that INSERT, and again on a conflict.
//   - Load, All: one prepared query, decoded by hand.
//
// mem has no baseline: nothing to compare with that is worth the name.
//
// # What the numbers mean
//
// ns/op, B/op and allocs/op are for one operation of ours (an append, a command, a load) with all callers at it, so ns/op is the time
// divided by the operations and not what one caller waits: that is p50-ms and p99-ms. events/s counts events, or commands where each makes one.
// B/op and allocs/op have a few bytes in them for the latencies that are kept.
//
// Of numbers from a machine that does other things too, believe the ratios. Of ratios, believe those of a run of at least a second
// (-benchtime=1s, the default): with -benchtime=1x the benchmarks show only that they work.
package bench
