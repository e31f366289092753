package chaos_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es/internal/test/chaos"
	"github.com/thalo-go/es/internal/test/testserver"
)

var (
	minutes  = flag.Float64("minutes", 0, "duration of fault injection (default 1.5 if ES_TEST_REQUIRE or CI is set; otherwise the test is skipped)")
	seed     = flag.Uint64("seed", 0, "seed of the random numbers (default: a new one)")
	database = flag.String("postgres", "", "URL of a database to use instead of starting a server")
	cluster  = flag.String("kafka", "", "bootstrap.servers of a cluster to use instead of starting one; with -postgres alone, Kafka is left out")
	brokers  = flag.Int("brokers", 1, "number of nodes of the started cluster, 1 or 3; 0 leaves Kafka out")
	beside   = flag.String("beside", "", "test binary of this package built from another release, which half of the processes run")
	powerCut = flag.Bool("powercut", false, "cut the power of the started server, and of the read models in SQLite; Linux with a C compiler only")
	secure   = flag.Bool("secure", false, "give the started cluster TLS, SCRAM and an authorizer")
	keep     = flag.Bool("keep", false, "keep the evidence of a run that passed")
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
			t.Skip("takes minutes: run make chaos, or give -args -minutes 1.5")
		}
		*minutes = 1.5
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000) + 1
	}
	chaos.Run(t, chaos.Options{Duration: time.Duration(*minutes * float64(time.Minute)), Seed: *seed, Postgres: *database, Keep: *keep,
		Kafka: *cluster, Brokers: *brokers, NoKafka: *brokers == 0, Beside: *beside, PowerCut: *powerCut, Secure: *secure})
}

// The release before keeps working beside this one: half of the processes are of either, as in a rolling deployment.
func TestChaosBesideTheReleaseBefore(t *testing.T) {
	if os.Getenv("ES_TEST_LARGE") != "1" {
		t.Skip("takes minutes, and builds another release: set ES_TEST_LARGE=1, or run make chaos BESIDE=$(cat internal/test/chaos/testdata/release-before)")
	}
	before, err := os.ReadFile("testdata/release-before")
	if err != nil {
		t.Fatal(err)
	}
	revision := strings.TrimSpace(string(before))
	if err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", revision+"^{commit}").Run(); err != nil {
		t.Skipf("the repository does not have revision %s: fetch the whole history", revision)
	}
	binary := filepath.Join(t.TempDir(), "before")
	if out, err := exec.CommandContext(t.Context(), "../../../tools/chaos-binary.sh", revision, binary).CombinedOutput(); err != nil {
		t.Fatalf("build the release before: %v\n%s", err, out)
	}
	chaos.Run(t, chaos.Options{Duration: 30 * time.Second, Seed: rand.Uint64N(1_000_000) + 1, Beside: binary})
}

func mustRun() bool {
	for _, name := range []string{"ES_TEST_REQUIRE", "CI"} {
		if is, err := strconv.ParseBool(os.Getenv(name)); err == nil && is {
			return true
		}
	}
	return false
}
