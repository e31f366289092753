// Package testserver starts real servers for tests: PostgreSQL, pgbouncer in front of it, Apache Kafka, and a proxy
// that breaks connections at chosen moments. A server is downloaded once into a cache. It runs on a free port of
// 127.0.0.1, never as root, with its data in a temporary folder and fsync on. It ends with the test process, even if
// that is killed.
//
// A package that uses it has this TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(testserver.Run(m)) }
//
// Each test creates its own database on a server that the tests of the package share:
//
//	testserver.Each(t, func(t *testing.T, server *testserver.Server) {
//		store, err := postgres.Open(t.Context(), server.Database(t))
//
// EachBroker does the same for Kafka: it runs a test on the in-process broker of kafkatest and on a real one. A test
// that stops or kills its server starts its own with StartPostgres or StartKafka.
//
// Environment variables:
//
//	ES_TEST_POSTGRES  URL of a server to use instead of starting one; the user must be able to create databases
//	ES_TEST_KAFKA     bootstrap servers of a cluster to use instead of starting one
//	ES_TEST_REQUIRE   1: a test whose server is unavailable fails instead of being skipped; CI=true does the same
//	ES_TEST_CACHE     cache folder, instead of thalo-es-testserver in the user's cache folder
//
// Downloading PostgreSQL 14 and 18 and Kafka requires mvn and the network; Kafka requires java. Packages of the
// distribution are downloaded with apt-get. Nothing is installed. go test -short skips every test that needs a server.
package testserver
