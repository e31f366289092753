// Package testserver starts real servers for tests: PostgreSQL, pgbouncer in front of it, Apache Kafka, and a proxy that breaks connections
// at chosen moments. A server is fetched once into a cache, runs on a free port of 127.0.0.1 with its data in a temporary
// folder and fsync on, never as root, and ends with the test process even if that is killed.
//
// A package that uses it says so in its TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }
//
// and a test takes a database of its own on a server that it shares with the package's other tests:
//
//	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
//		store, err := postgres.Open(t.Context(), server.Database(t))
//
// Kafka is had likewise from EachBroker, which takes kafkatest's broker within the process and then a real one.
//
// What tests do to a server of their own, from StartPostgres, no other test sees.
//
// These variables of the environment are obeyed:
//
//	ES_TEST_POSTGRES  the URL of a server to use, with the right to create databases, in place of any that would be started
//	ES_TEST_KAFKA     the bootstrap servers of a cluster to use in place of the one that is started
//	ES_TEST_REQUIRE   1: a test fails when its server cannot be had, and is not skipped; CI=true says the same
//	ES_TEST_CACHE     the folder for what was fetched, in place of thalo-es-testserver in the user's cache folder
//
// Fetching needs mvn and the network for PostgreSQL 14 and 18 and for Kafka, which needs java to run, and apt-get for what the distribution packages; neither
// installs anything. go test -short skips every test that asks for a server.
package testserver
