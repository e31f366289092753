package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// exported returns the metrics of a service that has one of each, with the labels of each.
func exported(t *testing.T) map[string]map[string]bool {
	t.Helper()
	s, store, _ := watch(t)
	get(t, s, http.MethodPost, "/accounts/ann", `{"Amount": 100}`)
	err := store.React(t.Context(), projection.Reaction{
		Name: "later", Once: true, From: projection.Beginning(), Handle: func(context.Context, es.Record) error { return nil },
		Due: func(es.Record) (time.Time, error) { return time.Now().Add(time.Hour), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.AcquireLease(t.Context(), "relay/bank/relay", "host", time.Hour, "position 1, 2 behind, 10 records/s, 4.5 s old"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := store.WaitFor(ctx, "balances", 2); err != nil {
		t.Fatal(err)
	}
	return parse(get(t, s, http.MethodGet, "/metrics", ""))
}

var sample = regexp.MustCompile(`(?m)^(es_\w+)(?:\{(.*)\})? `)

// parse returns the labels of the metrics in the text that Prometheus reads.
func parse(text string) map[string]map[string]bool {
	metrics := make(map[string]map[string]bool)
	for _, m := range sample.FindAllStringSubmatch(text, -1) {
		labels := map[string]bool{"instance": true} // added by Prometheus
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			labels[l[1]] = true
		}
		metrics[m[1]] = labels
	}
	return metrics
}

// queries are the expressions of the dashboard and the alerts, by where they are.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			all["panel "+p.Title+": "+target.LegendFormat] = target.Expr
		}
	}
	for _, a := range alerts(t) {
		all["alert "+a.Alert] = a.Expr
	}
	return all
}

type alert struct {
	Alert, Expr string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	text, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []alert
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Groups) != 1 || len(rules.Groups[0].Rules) == 0 {
		t.Fatalf("alerts.yml has %d groups", len(rules.Groups))
	}
	return rules.Groups[0].Rules
}

var (
	metricName = regexp.MustCompile(`\bes_\w+`)
	selected   = regexp.MustCompile(`(es_\w+)\{([^}]*)\}`)
	grouped    = regexp.MustCompile(`\bby \(([^)]*)\)`)
	label      = regexp.MustCompile(`\w+`)
)

// The dashboard and the alerts ask for metrics and labels that there are, and every metric is on one of them.
func TestDashboardAndAlertsNameMetricsThatAreExported(t *testing.T) {
	metrics := exported(t)
	used := make(map[string]bool)
	for where, query := range queries(t) {
		for _, problem := range check(query, metrics) {
			t.Errorf("%s: %s: %s", where, query, problem)
		}
		for _, name := range metricName.FindAllString(query, -1) {
			used[name] = true
		}
	}
	for name := range metrics {
		if !used[name] {
			t.Errorf("%s is exported, but neither on the dashboard nor in an alert", name)
		}
	}
}

// check returns what is wrong with a query.
func check(query string, metrics map[string]map[string]bool) (problems []string) {
	names := metricName.FindAllString(query, -1)
	if len(names) == 0 {
		return []string{"no metric"}
	}
	for _, name := range names {
		if metrics[name] == nil {
			problems = append(problems, name+" is not exported")
			continue
		}
		for _, by := range grouped.FindAllStringSubmatch(query, -1) {
			for _, l := range label.FindAllString(by[1], -1) {
				if !metrics[name][l] {
					problems = append(problems, name+" has no label "+l)
				}
			}
		}
		if strings.Contains(query, "histogram_quantile") && !metrics[name]["le"] {
			problems = append(problems, name+" has no label le")
		}
		if strings.HasSuffix(name, "_total") != regexp.MustCompile(`(rate|increase)\(`+name+`\b`).MatchString(query) {
			problems = append(problems, "a counter needs rate or increase, and "+name+" is one or has one")
		}
	}
	for _, m := range selected.FindAllStringSubmatch(query, -1) {
		for _, l := range regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(m[2], -1) {
			if !metrics[m[1]][l[1]] {
				problems = append(problems, m[1]+" has no label "+l[1])
			}
		}
	}
	if strings.Count(query, "(") != strings.Count(query, ")") {
		problems = append(problems, "parentheses do not match")
	}
	return problems
}

// The check can fail.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	metrics := map[string]map[string]bool{"es_a": {"kind": true}, "es_b_total": {"le": true}}
	for query, want := range map[string]string{
		"max(es_c)":                     "es_c is not exported",
		"max by (shard) (es_a)":         "es_a has no label shard",
		`es_a{outcome="x"}`:             "es_a has no label outcome",
		"sum(es_b_total)":               "a counter needs rate or increase, and es_b_total is one or has one",
		"rate(es_a[5m])":                "a counter needs rate or increase, and es_a is one or has one",
		"max(es_a":                      "parentheses do not match",
		"histogram_quantile(0.9, es_a)": "es_a has no label le",
		"1 > 2":                         "no metric",
		"histogram_quantile(0.9, rate(es_b_total[5m]))": "",
		"max by (kind) (es_a)":                          "",
	} {
		if got := check(query, metrics); (want == "") != (len(got) == 0) || want != "" && !slices.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

// Each alert says what it means, and operations.md says what to do.
func TestAlertsAreExplained(t *testing.T) {
	guide, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, a := range alerts(t) {
		if seen[a.Alert] {
			t.Errorf("two alerts are named %s", a.Alert)
		}
		seen[a.Alert] = true
		for _, key := range []string{"summary", "description"} {
			if a.Annotations[key] == "" {
				t.Errorf("%s has no %s", a.Alert, key)
			}
		}
		if severity := a.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has the severity %q", a.Alert, severity)
		}
		if a.For != "" {
			if d, err := time.ParseDuration(a.For); err != nil || d <= 0 {
				t.Errorf("%s has the duration %q", a.Alert, a.For)
			}
		}
		if !strings.Contains(string(guide), "| `"+a.Alert+"` |") {
			t.Errorf("docs/operations.md has no row for %s", a.Alert)
		}
	}
}

// What the process counts can be scraped while its database is away, and that it is away.
func TestMetricsWithoutADatabase(t *testing.T) {
	store, err := sqlite.Open(t.TempDir() + "/accounts.db")
	if err != nil {
		t.Fatal(err)
	}
	s, err := newService(store, new(lines))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	text := get(t, s, http.MethodGet, "/metrics", "")
	for _, want := range []string{"\nes_store_available 0\n", "\nes_append_calls_total{outcome=\"written\"} 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics of a process without its database lack %q", want)
		}
	}
}
