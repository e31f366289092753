package server_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es/bench/internal/server"
)

func TestInAcceptsBothFormsOfConnectionStrings(t *testing.T) {
	for _, url := range []string{
		"postgres://ann:secret@db.example:5433/postgres?sslmode=disable",
		"postgresql://ann:secret@db.example:5433?sslmode=disable",
		"host=db.example port=5433 user=ann password='secret' dbname=postgres sslmode=disable",
	} {
		config, err := pgx.ParseConfig(server.In(url, "bench_1"))
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if config.Database != "bench_1" || config.Host != "db.example" || config.Port != 5433 || config.User != "ann" || config.Password != "secret" {
			t.Errorf("%s connects to %s on %s:%d as %s", url, config.Database, config.Host, config.Port, config.User)
		}
	}
}
