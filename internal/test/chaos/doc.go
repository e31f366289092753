// Package chaos breaks everything and then shows that nothing was lost.
//
// A run starts real processes, which are the test binary again in one of its roles: writers move money between the accounts of a bank;
// others build read models from what the writers append, publish it to Kafka, and are told of it by topics. A nemesis, which does the same
// again when it is given the same seed, kills them, pauses them for longer than leases and transactions last, stops their servers, and
// cuts their connections. Each process writes down what it was told: which of its appends were acknowledged and where, which were refused, and of which it never heard (see Entry). In the end everything
// is healed, and what is still under way comes to its end. Then Check holds the evidence, which is the log, the read models, the topics
// and what the processes were told, against the promises in docs/guarantees.md.
//
// A run shows something only if much was broken and much went on meanwhile: one that has seen too little of either fails (see tooLittle),
// and while nothing reaches the read models the nemesis keeps still for a moment (see watch).
//
//	make chaos MINUTES=30 SEED=7
//	make chaos MINUTES=30 CHAOS='-brokers 3 -keep'
//	go test ./internal/test/chaos -run TestChaos -v -args -minutes 5 -postgres postgres://user@host/database -kafka host:9092
//
// On servers of the user's own the nemesis does what it can from outside: it kills and pauses processes and ends connections.
// Everything is in schemas and topics of its own there, whose names begin with chaos; the topics stay.
//
// A run that finds a violation keeps its evidence in a folder, and says where, with the seed.
package chaos
