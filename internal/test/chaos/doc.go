// Package chaos injects faults into a running system and then checks that no guarantee was violated.
//
// A run starts real processes, which are the test binary started again in one of its roles. Writers move money between
// the accounts of a bank. Others build read models from the log, publish the log to Kafka, and consume the topics. A
// nemesis kills processes, pauses them for longer than leases and transactions last, stops their servers, and cuts
// their connections. With the same seed it does the same again. Each process records the answers to its requests: which
// appends were acknowledged and where, which were refused, and which got no answer (see Entry). At the end all faults
// are undone and outstanding work is completed. Then Check compares the evidence (the log, the read models, the topics
// and the recorded answers) with the guarantees in docs/guarantees.md.
//
// A run means something only if many faults were injected while much work was done. One with too little of either fails
// (see tooLittle). While no records reach the read models, fault injection is suspended (see watch).
//
//	make chaos MINUTES=30 SEED=7
//	make chaos MINUTES=30 CHAOS='-brokers 3 -keep'
//	make chaos MINUTES=30 BESIDE=v0.9.0
//	go test ./internal/test/chaos -run TestChaos -v -args -minutes 5 -postgres postgres://user@host/database -kafka host:9092
//
// With BESIDE, half of the processes are of another release, as in a rolling deployment that is rolled back and forth. That release
// creates the schema, and this one expands it.
//
// On existing servers the nemesis is limited to faults from outside: it kills and pauses processes and ends
// connections. All data is in schemas and topics whose names begin with chaos. The schemas are dropped; the topics
// stay.
//
// A run that finds a violation keeps its evidence in a folder, and logs the folder and the seed.
package chaos
