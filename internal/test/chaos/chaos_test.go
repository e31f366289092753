package chaos_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/thalo-go/es/internal/test/chaos"
	"github.com/thalo-go/es/internal/test/testserver"
)

var (
	minutes  = flag.Float64("minutes", 0, "how long the nemesis goes about (1.5 where all tests must run; elsewhere no run is made without it)")
	seed     = flag.Uint64("seed", 0, "of all that is random (a new one)")
	database = flag.String("postgres", "", "the URL of a database to use in place of a server of the run's own")
	cluster  = flag.String("kafka", "", "bootstrap.servers of a cluster to use in place of one of the run's own; with -postgres and without it there are no topics")
	brokers  = flag.Int("brokers", 1, "nodes of the run's own cluster, 1 or 3; 0 leaves Kafka out")
	keep     = flag.Bool("keep", false, "keep the evidence of a run that has found nothing")
)

func TestMain(m *testing.M) {
	if chaos.Play() {
		return
	}
	flag.Parse()
	os.Exit(testserver.Run(m))
}

func TestChaos(t *testing.T) {
	if *minutes == 0 {
		if testing.Short() || !mustRun() {
			t.Skip("it takes minutes: make chaos, or -args -minutes 1.5")
		}
		*minutes = 1.5
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	chaos.Run(t, chaos.Options{Duration: time.Duration(*minutes * float64(time.Minute)), Seed: *seed, Postgres: *database, Keep: *keep,
		Kafka: *cluster, Brokers: *brokers, NoKafka: *brokers == 0})
}

func mustRun() bool {
	for _, name := range []string{"ES_TEST_REQUIRE", "CI"} {
		if is, err := strconv.ParseBool(os.Getenv(name)); err == nil && is {
			return true
		}
	}
	return false
}
