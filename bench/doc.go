// Package bench measures what the toolkit costs, compared with baselines that one would write instead.
//
//	make bench                                              everything, on private servers
//	go test -run '^$' -bench . ./bench                      everything that needs no set-up
//	go test -run '^$' -bench Append/store=sqlite ./bench    a part; names have benchstat's key=value form
//	go run ./bench/figures                                  the named figures, each with its goal
//
// Benchmarks of Postgres need ES_TEST_POSTGRES, the URL of a server on which databases are created and dropped. Those
// of Kafka need ES_TEST_KAFKA, the address of a cluster on which topics are left. With ES_BENCH_SERVERS=1 (or
// ES_TEST_REQUIRE=1 or CI=true) private servers are started instead, as make bench does.
//
// # What is measured
//
//   - Append: writers append one event of 120 bytes at a time, each as soon as its previous one is durable, to streams of ten
//     events with scattered ids. Batch and payload vary.
//   - Processes: the same by several processes that share the log.
//   - Execute: commands on bank accounts. warm: each caller has its own cached account. cold: accounts of ten events, none
//     cached. hot: all callers use one account. mixed: nine loads for each command, on a thousand accounts, cached or not.
//   - Load: the state of one uncached account, with and without a snapshot.
//   - All: a whole log, record by record.
//   - Follow: the delay from the return of Append to the follower's loop body, with the same store value and with another
//     one, which shares nothing with the first, as in another process.
//   - Inline: appends to a log with an inline projection.
//   - Rebuild: a read model of the whole log that counts and sums by account, with one upsert per batch or per record.
//   - Project: the delay from the return of Append to the commit of the read model.
//   - Relay, RelayDelay: the rate of a relay, and the delay from the return of Append to a reader of committed messages.
//   - Consumer, Source: reading a topic with a handler that does nothing, and into a read model.
//   - EndToEnd: the delay from the return of Execute to the commit of the read model in another database, through a topic.
//   - Growth: loads, reads, a follower, commands and appends on logs that already have many events, to show that the cost
//     does not depend on their number. ES_BENCH_STORED=10000,1000000,10000000 selects the numbers.
//
// Stores: mem is es.Mem, which is not durable; it shows the cost of the toolkit itself. sqlite is package sqlite with a
// file in the temporary folder. If that folder is in memory, the numbers say nothing about a disk; set TMPDIR to a
// folder on one. postgres is package postgres; client and server share the machine. broker=kafkatest is the in-process
// broker, which keeps everything in memory: it shows the cost of our side. broker=kafka is Kafka with one node on the
// same machine.
//
// # Baselines
//
// Baseline and toolkit run alternately, for a tenth of the benchmark's time each. The metric x-insert is our rate
// divided by the rate of the baseline insert: the median of the ratios of neighbouring runs. 2 means twice as fast.
// insert-events/s, insert-p50-ms and insert-p99-ms are the results of the baseline. Package baseline has all of them,
// and says what each leaves out:
//
//   - textbook: begin, select the version, insert, commit.
//   - insert: one INSERT per append, without a transaction; its unique index is the version check. For sqlite it is the
//     textbook, but faster.
//   - limit: all rows exist at the start and are inserted 1,000 per transaction, by COPY or by prepared statements.
//   - retry: load the whole stream, decide, append; repeat on a conflict.
//   - bare: the bare driver or client. Loads and reads: one prepared query, decoded by hand. Read models: a loop that reads a
//     page, applies it and moves its checkpoint. Relay: transactions of messages that are in memory. Consumer and Source: a
//     consumer that only reads.
//   - without: the same log without the projection.
//   - one: as many writers in a single process.
//
// mem has no baseline, because there is nothing comparable.
//
// # What the numbers mean
//
// ns/op, B/op and allocs/op are for one of our operations (an append, a command, a load) with all callers running. So
// ns/op is the time divided by the number of operations; the latency of one caller is p50-ms and p99-ms. events/s
// counts events, or commands where each produces one. cpu-us/event and allocs/event are those of our process;
// server-cpu-us/event is the time of all processes of a private Postgres. disk-B/event is the size of the log on disk
// with its indexes, for events of 120 bytes in All and for the small ones of the bank in Growth. Allocations include a
// few bytes for recorded latencies.
//
// On a machine with other load, trust the ratios rather than the rates, and only ratios of runs of at least one second
// (-benchtime=1s, the default). With -benchtime=1x the benchmarks only show that they work.
package bench
