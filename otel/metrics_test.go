package otel_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/otel"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sqlite"
)

// collect returns all values, by name and attributes, as in es.append.calls{outcome=written}.
// A store that stores.Open returns has metrics too.
var _ otel.Store = projection.Database(nil)

func collect(t *testing.T, reader metric.Reader) (map[string]float64, error) {
	t.Helper()
	var all metricdata.ResourceMetrics
	err := reader.Collect(t.Context(), &all)
	values := make(map[string]float64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					values[m.Name+labels(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					values[m.Name+labels(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					values[m.Name+labels(p.Attributes)] = p.Value
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					values[m.Name+labels(p.Attributes)] = p.Value
				}
			default:
				t.Errorf("%s has data of type %T", m.Name, data)
			}
		}
	}
	return values, err
}

func labels(set attribute.Set) string {
	var all []string
	for _, a := range set.ToSlice() {
		all = append(all, fmt.Sprintf("%s=%s", a.Key, a.Value.String()))
	}
	return "{" + strings.Join(all, ",") + "}"
}

func expectValues(t *testing.T, got, want map[string]float64) {
	t.Helper()
	picked := make(map[string]float64)
	for name := range want {
		if value, found := got[name]; found {
			picked[name] = value
		}
	}
	if diff := cmp.Diff(want, picked); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func openStore(t *testing.T) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(filepath.Join(t.TempDir(), "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func register(t *testing.T, store otel.Store, repos map[string]otel.Counted) metric.Reader {
	t.Helper()
	reader := metric.NewManualReader()
	registration, err := otel.Metrics(metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"), store, repos)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registration.Unregister(); err != nil {
			t.Error(err)
		}
	})
	return reader
}

// Every metric is read from the store and the Repos at the collection, also those of workers that do not run.
func TestMetrics(t *testing.T) {
	store := openStore(t)
	repo := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	reader := register(t, store, map[string]otel.Counted{"account": repo})
	execute := func(c account.Command, options ...es.ExecuteOption) {
		_, _ = repo.Execute(t.Context(), "ann", c, options...)
	}
	execute(account.Open{Owner: "ann"})
	execute(account.Deposit{Amount: 5}, es.CommandID("once"))
	execute(account.Deposit{Amount: 5}, es.CommandID("once"))
	execute(account.Withdraw{Amount: 50})
	balances := sqlite.Projection{Name: "balances", Version: 2, Once: true, Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
	if err := store.Project(t.Context(), balances); err != nil {
		t.Fatal(err)
	}
	execute(account.Deposit{Amount: 5})
	later := projection.Reaction{
		Name: "later", Once: true, From: projection.Beginning(), OnError: es.Park, Retries: -1,
		Due: func(r es.Record) (time.Time, error) {
			if r.Version == 2 {
				return time.Now().Add(time.Hour), nil
			}
			return time.Time{}, nil
		},
		Handle: func(_ context.Context, r es.Record) error {
			if r.Version == 3 {
				return errors.New("broken")
			}
			return nil
		},
	}
	if err := store.React(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if _, err := store.AcquireLease(t.Context(), "relay/bank/main", "host", time.Hour, "position 1, 2 behind, 10 records/s, 4.5 s old"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.AcquireLease(t.Context(), "reports", "host", time.Hour, "something else"); err != nil {
		t.Fatal(err)
	}
	got, err := collect(t, reader)
	if err != nil {
		t.Fatal(err)
	}
	of := func(name, labels string) string { return name + "{" + labels + "}" }
	shard := func(name string) string { return of(name, "kind=projection,projection=balances,shard=0/1,version=2") }
	reaction := func(name string) string { return of(name, "kind=reaction,projection=later,shard=0/1,version=0") }
	relay := func(name string) string { return of(name, "prefix=bank,relay=main") }
	expectValues(t, got, map[string]float64{
		of("es.append.calls", "outcome=written"): 3, of("es.append.calls", "outcome=duplicate"): 1, of("es.append.calls", "outcome=conflict"): 0,
		of("es.append.calls", "outcome=refused"): 0, of("es.append.calls", "outcome=unknown"): 0, of("es.append.calls", "outcome=failed"): 0,
		of("es.append.events", ""): 3, of("es.append.batches", ""): 4, of("es.append.batch.size", ""): 4, of("es.append.waiting", ""): 0,
		of("es.append.duration.bucket", "le=+Inf"): 4, of("es.append.batch.duration.bucket", "le=+Inf"): 4,
		of("es.append.batch.size.bucket", "le=1"): 4, of("es.append.batch.size.bucket", "le=8192"): 4,
		of("es.store.available", ""): 1,

		of("es.command.calls", "kind=account,outcome=other"): 3, of("es.command.calls", "kind=account,outcome=refused"): 1, of("es.command.calls", "kind=account,outcome=repeated"): 1,
		of("es.command.retries", "kind=account"): 0, of("es.cache.rounds", "hit=true,kind=account"): 4, of("es.cache.rounds", "hit=false,kind=account"): 1,
		of("es.command.duration.bucket", "kind=account,le=+Inf"): 5,

		shard("es.projection.lag"): 1, shard("es.projection.worker"): 0, shard("es.projection.parked"): 0, shard("es.projection.error"): 0,
		shard("es.projection.caught_up"): 1, shard("es.projection.cursor"): 2,
		reaction("es.projection.parked"): 1, reaction("es.projection.waiting"): 1, reaction("es.projection.overdue"): 0, reaction("es.projection.lag"): 0,

		relay("es.relay.lag"): 2, relay("es.relay.age"): 4.5, relay("es.relay.worker"): 1, relay("es.relay.position"): 1,
	})
	if age := got[shard("es.projection.age")]; age <= 0 {
		t.Errorf("the projection without a worker has the age %v", age)
	}
	for name, value := range got {
		if strings.Contains(name, "reports") || strings.Contains(name, "ann") {
			t.Errorf("there is the metric %s: %v", name, value)
		}
	}
}

// The values in the buckets never decrease with le, and the last has them all.
func TestBucketsAreCumulative(t *testing.T) {
	store := openStore(t)
	reader := register(t, store, nil)
	for i := range 20 {
		a := es.Append{Stream: es.Stream{Kind: "k", ID: "i"}, Expected: es.Version(i), Events: []es.Record{{Type: "x"}}}
		if _, err := store.Append(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	got, err := collect(t, reader)
	if err != nil {
		t.Fatal(err)
	}
	stats := store.Stats().Append
	last := 0.0
	for _, bound := range stats.Bounds {
		value, found := got[fmt.Sprintf("es.append.duration.bucket{le=%v}", bound)]
		if !found || value < last {
			t.Errorf("bucket %v has %v, after %v", bound, value, last)
		}
		last = value
	}
	if all := got["es.append.duration.bucket{le=+Inf}"]; all != 20 || got["es.append.duration{}"] != stats.Sum {
		t.Errorf("the last bucket has %v of 20, the sum is %v and not %v", all, got["es.append.duration{}"], stats.Sum)
	}
}

// away is a store whose database does not answer.
type away struct {
	*sqlite.Store
	err error
}

func (a *away) Status(ctx context.Context) ([]projection.Status, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.Store.Status(ctx)
}

// A database that does not answer can be seen, and the counters of the process are there all the same.
func TestMetricsWithoutADatabase(t *testing.T) {
	store := &away{openStore(t), errors.New("away")}
	reader := register(t, store, nil)
	got, err := collect(t, reader)
	if !errors.Is(err, store.err) {
		t.Errorf("the collection returned %v", err)
	}
	expectValues(t, got, map[string]float64{"es.store.available{}": 0, "es.append.calls{outcome=written}": 0})
	store.err = nil
	if got, err = collect(t, reader); err != nil {
		t.Error(err)
	}
	expectValues(t, got, map[string]float64{"es.store.available{}": 1})
}

// A relay whose lease has expired is behind by all that was written since.
func TestARelayThatIsDead(t *testing.T) {
	store := openStore(t)
	reader := register(t, store, nil)
	for i := range 3 {
		a := es.Append{Stream: es.Stream{Kind: "k", ID: "i"}, Expected: es.Version(i), Events: []es.Record{{Type: "x"}}}
		if _, err := store.Append(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.AcquireLease(t.Context(), "relay/bank/main", "host", time.Microsecond, "position 1, 0 behind, 10 records/s"); err != nil {
		t.Fatal(err)
	}
	leases, err := store.ListLeases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(leases, func(l es.Lease) bool { return l.Name == "relay/bank/main" }); i < 0 {
		t.Fatalf("the expired lease is not among %v", leases)
	}
	got, err := collect(t, reader)
	if err != nil {
		t.Fatal(err)
	}
	relay := func(name string) string { return name + "{prefix=bank,relay=main}" }
	expectValues(t, got, map[string]float64{relay("es.relay.worker"): 0, relay("es.relay.lag"): 2, relay("es.relay.position"): 1})
	if age := got[relay("es.relay.age")]; age <= 0 {
		t.Errorf("its age is %v", age)
	}
}

// A process that may only read reports projections and relays too.
func TestMetricsOfAReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	writer, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	balances := sqlite.Projection{Name: "balances", Once: true, Handle: func(context.Context, *sql.Tx, []es.Record) error { return nil }}
	if err := errors.Join(writer.Project(t.Context(), balances), writer.Close()); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Config{ReadOnly: true}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "k", ID: "i"}, Events: []es.Record{{Type: "x"}}}); !errors.Is(err, es.ErrInvalid) {
		t.Fatalf("append: %v", err)
	}
	got, err := collect(t, register(t, store, nil))
	if err != nil {
		t.Fatal(err)
	}
	expectValues(t, got, map[string]float64{
		"es.store.available{}": 1, "es.append.calls{outcome=refused}": 1, "es.append.calls{outcome=written}": 0,
		"es.projection.worker{kind=projection,projection=balances,shard=0/1,version=0}": 0,
	})
}

func TestMetricsRefuses(t *testing.T) {
	meter := metricnoop.NewMeterProvider().Meter("test")
	if _, err := otel.Metrics(meter, nil, nil); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("without a store: %v", err)
	}
	if _, err := otel.Metrics(meter, openStore(t), map[string]otel.Counted{"account": nil}); !errors.Is(err, es.ErrInvalid) {
		t.Errorf("with a nil repo: %v", err)
	}
}
