// Package bench says what the toolkit costs, side by side with what one would write instead.
//
//	make bench                                              everything; private servers are started
//	go test -run '^$' -bench . ./bench                      everything that needs no set-up
//	go test -run '^$' -bench Append/store=sqlite ./bench    a part; the names are in benchstat's key=value form
//	go run ./bench/figures                                  the named figures, each against its goal
//
// Postgres and Kafka take part if ES_TEST_POSTGRES has the URL of a server, on which databases are made and dropped, and ES_TEST_KAFKA the address
// of a cluster, on which topics are left; or if ES_BENCH_SERVERS=1 (or ES_TEST_REQUIRE=1 or CI=true) lets private ones be started, as make bench does.
//
// # What is measured
//
//   - Append: writers that append one event of 120 bytes at a time, each as soon as the one before is durable, to streams of ten events
//     with scattered ids. Batch and payload vary.
//   - Processes: the same by several processes that share the log.
//   - Execute: commands on bank accounts. warm: each caller has an account of his own, which is cached. cold: accounts of ten events, none
//     of them cached. hot: all callers on one account. mixed: nine loads for each command, on a thousand accounts, with the cache as it comes.
//   - Load: the state of one account, not cached, with and without a snapshot.
//   - All: a whole log, record by record.
//   - Follow: the delay from the return of Append to the follower's loop body, in the same process and in another value of the store,
//     which shares nothing with the first, as if it were another process.
//   - Inline: appends to a log with an inline projection.
//   - Rebuild: a read model of the whole log, which counts and sums by account, with one upsert a batch and with one a record.
//   - Project: the delay from the return of Append to the commit of the read model.
//   - Relay, RelayDelay: what a relay publishes, and the delay from the return of Append to a reader of committed messages.
//   - Consumer, Source: what reads a topic, by a handler that does nothing and into a read model.
//   - EndToEnd: the delay from the return of Execute to the commit of the read model in another database, through a topic.
//   - Growth: loads, reads, follower, commands and appends on logs that have many events already, to show that the cost stays flat.
//     ES_BENCH_STORED=10000,1000000,10000000 chooses how many.
//
// Stores: mem is es.Mem, which keeps nothing and syncs nothing; it shows what the toolkit itself costs. sqlite is package sqlite on a file
// in the folder for temporary files. If that is in memory, the numbers say nothing about a disk; set TMPDIR to a folder on one.
// postgres is package postgres; client and server share the machine. broker=kafkatest is the broker within the process, which keeps everything in
// memory: it shows what our side costs. broker=kafka is Kafka of one node on the same machine.
//
// # Against what
//
// Baselines take turns with the toolkit, a tenth of the benchmark's time each. The metric x-insert, say, is our rate over that of the baseline
// insert: the median of the ratios turn by turn. 2 means twice as fast. insert-events/s, insert-p50-ms and insert-p99-ms are what the baseline did.
// Package baseline has them all and says what each leaves out:
//
//   - textbook: begin, select the version, insert, commit.
//   - insert: one INSERT each, committed by itself, whose unique index is the version check. For sqlite it is the textbook, only faster.
//   - limit: all rows are there at the start and go in 1,000 to a transaction, by COPY or a bare loop of prepared statements.
//   - retry: load the whole stream, decide, append, and again on a conflict.
//   - bare: the bare driver or client. Loads and reads: one prepared query, decoded by hand. Read models: a loop that reads a page, applies it and moves
//     its checkpoint. Relay: transactions of messages that are in memory. Consumer and Source: a consumer that only reads.
//   - without: the same log without the projection.
//   - one: as many writers in a single process.
//
// mem has no baseline: nothing to compare with that is worth the name.
//
// # What the numbers mean
//
// ns/op, B/op and allocs/op are for one operation of ours (an append, a command, a load) with all callers at it, so ns/op is the time
// divided by the operations and not what one caller waits: that is p50-ms and p99-ms. events/s counts events, or commands where each makes one.
// cpu-us/event and allocs/event are those of our process; server-cpu-us/event is the time of all processes of a private Postgres.
// disk-B/event is what the log takes on disk with its indexes, for events of 120 bytes with All and for the bank's small ones with Growth.
// Allocations have a few bytes in them for the latencies that are kept.
//
// Of numbers from a machine that does other things too, believe the ratios. Of ratios, believe those of a run of at least a second
// (-benchtime=1s, the default): with -benchtime=1x the benchmarks show only that they work.
package bench
