package es_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependencies keeps the table of what each package may link. Some dependencies are large or need a C library.
// Each new package gets a row. The standard library is always allowed. "/..." matches all packages below, as in the go command.
func TestDependencies(t *testing.T) {
	const (
		root     = "github.com/thalo-go/es"
		internal = root + "/internal/..."
		sqlite   = root + "/sqlite/..."
		postgres = root + "/postgres/..."
		xsync    = "golang.org/x/sync/..."
		lru      = "github.com/hashicorp/golang-lru/v2/..."

		pgx     = "github.com/jackc/pgx/v5/..."
		sqlite3 = "github.com/mattn/go-sqlite3/..."
		kafka   = "github.com/confluentinc/confluent-kafka-go/v2/..."
		kfake   = "github.com/twmb/franz-go/..."
		proto   = "google.golang.org/protobuf/..."

		relay      = root + "/kafka/internal/relay"
		feed       = root + "/kafka/internal/feed"
		consume    = root + "/kafka/internal/consume"
		deadletter = root + "/kafka/internal/deadletter"
	)
	for _, rule := range []struct {
		pkg   string
		only  []string // if set, nothing else may be linked, directly or through others
		never []string
		why   string
	}{{
		pkg:  ".",
		only: []string{internal, xsync, lru},
		why:  "a package of rules links the root package and nothing else",
	}, {
		pkg:  "./examples/bank/account",
		only: []string{root, internal, xsync, lru},
		why:  "rules never see a database",
	}, {
		pkg:  "./examples/courses/enrolment",
		only: []string{root, internal, xsync, lru},
		why:  "rules never see a database",
	}, {
		pkg:  "./examples/profiles/profile",
		only: []string{root, root + "/sealed", internal, xsync, lru},
		why:  "rules hold sealed values, and never see a database",
	}, {
		pkg:  "./examples/orders/shop",
		only: []string{root, root + "/projection", internal, xsync, lru},
		why:  "a process never sees a database",
	}, {
		pkg:   "./examples/bank/notices",
		never: []string{postgres, pgx, kfake},
		why:   "a service that reads topics has one database and no broker",
	}, {
		pkg:  "./protobuf",
		only: []string{root, internal, xsync, lru, proto},
		why:  "it is for rules",
	}, {
		pkg:  "./schema",
		only: []string{root, internal, xsync, lru},
		why:  "a program that exports its events links no validator",
	}, {
		pkg:  "./examples/wallet",
		only: []string{root, root + "/examples/wallet/walletpb", root + "/protobuf", internal, xsync, lru, proto},
		why:  "rules never see a database",
	}, {
		pkg:  "./projection",
		only: []string{root, internal, xsync, lru},
		why:  "a read side is declared without a database",
	}, {
		pkg:  "./projection/memory",
		only: []string{root, root + "/projection", internal, xsync, lru},
		why:  "a test of a service links no database",
	}, {
		pkg:  "./eshttp",
		only: []string{root, internal, xsync, lru},
		why:  "a web handler never sees a database",
	}, {
		pkg:  "./otel",
		only: []string{root, root + "/projection", internal, xsync, lru, "go.opentelemetry.io/otel/...", "go.opentelemetry.io/auto/sdk/...", "github.com/cespare/xxhash/v2"},
		why:  "telemetry links the API of OpenTelemetry, and no SDK, exporter, database or Kafka client",
	}, {
		pkg:  "./sealed",
		only: []string{root, internal, xsync, lru},
		why:  "rules hold sealed values, and never see a database; the program brings the driver of that of the keys",
	}, {
		pkg:   "./examples/watched",
		never: []string{postgres, pgx, kafka, kfake},
		why:   "it shows metrics of a service with one database and no broker",
	}, {
		pkg:   "./estest",
		never: []string{root + "/estest/conformance", sqlite, postgres, pgx, sqlite3, kafka, kfake, proto},
		why:   "testing rules needs no database and no suite for implementers",
	}, {
		pkg:   "./estest/conformance",
		never: []string{sqlite, postgres, pgx, sqlite3, kafka, kfake},
		why:   "a conformance suite knows no backend",
	}, {
		pkg:  "./internal/form",
		only: []string{},
		why:  "the root package links it",
	}, {
		pkg:  "./internal/shape",
		only: []string{root + "/internal/form"},
		why:  "tests and exports of events link it",
	}, {
		pkg:  "./internal/group",
		only: []string{},
		why:  "the root package and every backend link it",
	}, {
		pkg:  "./internal/redaction",
		only: []string{},
		why:  "the root package and every backend link it",
	}, {
		pkg:  "./internal/tag",
		only: []string{},
		why:  "the root package and every backend link it",
	}, {
		pkg:  "./internal/migration",
		only: []string{root, internal, xsync, lru},
		why:  "every backend links it",
	}, {
		pkg:  "./internal/qualify",
		only: []string{},
		why:  "it changes texts, and knows no database",
	}, {
		pkg:   "./internal/commit",
		never: []string{sqlite, postgres, pgx, sqlite3, kafka, kfake},
		why:   "every backend links it",
	}, {
		pkg:  "./internal/sqltx",
		only: []string{root, root + "/projection", internal, xsync, lru},
		why:  "every SQL database links it",
	}, {
		pkg:   "./stores",
		never: []string{kafka, kfake},
		why:   "it opens databases, and only it links both",
	}, {
		pkg:   "./internal/engine",
		never: []string{sqlite, postgres, pgx, sqlite3, kafka, kfake},
		why:   "every backend with read models links it",
	}, {
		pkg:   "./sqlite",
		never: []string{postgres, pgx, kafka, kfake},
		why:   "an embedded store is small",
	}, {
		pkg:   "./postgres",
		never: []string{sqlite, sqlite3, kafka, kfake},
		why:   "a program on one database links no other, and needs no C compiler",
	}, {
		pkg:   "./kafka/internal/wire",
		never: []string{relay, feed, consume, deadletter, sqlite, postgres, pgx, kfake},
		why:   "it is what the other parts of package kafka share",
	}, {
		pkg:   "./kafka/internal/client",
		never: []string{relay, feed, consume, deadletter, sqlite, postgres, pgx, kfake},
		why:   "it is what the other parts of package kafka share",
	}, {
		pkg:   "./kafka/internal/relay",
		never: []string{feed, consume, deadletter},
		why:   "writing topics needs nothing that reads them",
	}, {
		pkg:   "./kafka/internal/feed",
		never: []string{consume, relay},
		why:   "a source of a projection is in no consumer group",
	}, {
		pkg:   "./kafka/internal/deadletter",
		never: []string{consume, relay},
		why:   "a consumer and a projection park records in the same way",
	}, {
		pkg:   "./kafka",
		never: []string{sqlite, postgres, pgx, sqlite3, kfake},
		why:   "a relay takes any log, and a broker for tests is not for production",
	}, {
		pkg:   "./kafka/kafkatest",
		never: []string{sqlite, postgres, pgx, sqlite3, kafka},
		why:   "a broker in the process needs no C library",
	}, {
		pkg:   "./cmd/es",
		never: []string{kafka, kfake},
		why:   "inspecting a store needs no Kafka library",
	}} {
		t.Run(rule.pkg, func(t *testing.T) {
			for _, dep := range linkedBy(t, rule.pkg) {
				if matches(dep, rule.never) || rule.only != nil && !matches(dep, rule.only) {
					t.Errorf("%s links %s, but %s: leave the import out, or change the row in deps_test.go with a reason", rule.pkg, dep, rule.why)
				}
			}
		})
	}
}

// TestOnlyThoseWhoImportItLinkIt checks that users of other packages do not link protocol buffers, OpenTelemetry, Prometheus, nor the format that
// an example shows.
func TestOnlyThoseWhoImportItLinkIt(t *testing.T) {
	const root = "github.com/thalo-go/es"
	rules := []struct {
		linked, may []string
	}{
		{
			[]string{"google.golang.org/protobuf/...", "github.com/fxamacker/cbor/..."},
			[]string{root + "/protobuf/...", root + "/examples/wallet/...", root + "/examples/watched", root + "/cmd/es", root + "/bench/..."},
		},
		{[]string{"go.opentelemetry.io/..."}, []string{root + "/otel/...", root + "/examples/watched"}},
		{[]string{"github.com/prometheus/...", "go.opentelemetry.io/otel/sdk/..."}, []string{root + "/examples/watched"}},
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, deps, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, rule := range rules {
			if matches(pkg, rule.may) {
				continue
			}
			for path := range strings.FieldsSeq(deps) {
				if matches(path, rule.linked) {
					t.Errorf("%s links %s: only %s may", pkg, path, strings.Join(rule.may, ", "))
					break
				}
			}
		}
	}
}

// TestOnlyTestsImportTestSupport checks that users do not link servers, chaos and models.
func TestOnlyTestsImportTestSupport(t *testing.T) {
	const support = "github.com/thalo-go/es/internal/test/"
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(pkg, support) || strings.HasPrefix(pkg, "github.com/thalo-go/es/bench") {
			continue
		}
		for path := range strings.FieldsSeq(imports) {
			if strings.HasPrefix(path, support) {
				t.Errorf("%s imports %s: only tests and bench may", pkg, path)
			}
		}
	}
}

// linkedBy returns the packages outside the standard library that a package links, without itself.
func linkedBy(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	deps := strings.Fields(string(out))
	if err != nil || len(deps) == 0 {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	return deps[:len(deps)-1] // go list puts a package behind what it depends on
}

// matches reports whether one of the patterns matches a package.
func matches(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		path, below := strings.CutSuffix(pattern, "/...")
		return pkg == path || below && strings.HasPrefix(pkg, path+"/")
	})
}
