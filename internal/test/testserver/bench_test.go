package testserver_test

import (
	"testing"

	"github.com/thalo-go/es/internal/test/testserver"
)

// The cost of a server and of a database for a test.

func BenchmarkStartPostgres(b *testing.B) {
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18, testserver.System} {
		b.Run(string(version), func(b *testing.B) {
			testserver.StartPostgres(b, testserver.PostgresOptions{Version: version})
			for b.Loop() {
				server, err := testserver.Launch(testserver.PostgresOptions{Version: version})
				if err != nil {
					b.Fatal(err)
				}
				if err := server.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDatabase(b *testing.B) {
	for _, version := range []testserver.Version{testserver.Postgres14, testserver.Postgres18} {
		b.Run(string(version), func(b *testing.B) {
			server := testserver.Postgres(b, version)
			for b.Loop() {
				server.Database(b)
			}
		})
	}
}
