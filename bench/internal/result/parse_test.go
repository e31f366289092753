package result_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es/bench/internal/result"
)

const output = `go: go1.26.8
cpus: 2
postgres: 18.1
Postgres is left out: run make bench.
goos: linux
cpu: Quick
BenchmarkAppend/store=mem/writers=16-2  	 1000	 8103 ns/op	 123456 events/s	 0.5 p50-ms
BenchmarkAppend/store=mem/writers=16-2  	 1000	 8105 ns/op	 123458 events/s	 0.9 p50-ms
BenchmarkSync  	 64	 90000 ns/op
BenchmarkProject/store=mem/mode=catch-up-2 	 1	 1 ns/op
PASS
ok  	github.com/thalo-go/es/bench	27.276s
{"Machine":{"CPU":"Quick","CPUs":2,"Memory":1024,"System":"linux/amd64","SyncMicros":90.5,"Versions":{"sqlite":"3.54.1"}}}
{"Figure":{"Name":"hot","What":"a, against b","Value":90,"Text":"90.0","Goal":"≥ 60","Bound":60,"OK":true}}
`

func TestRead(t *testing.T) {
	var got result.Set
	if err := got.Read("out", strings.NewReader(output)); err != nil {
		t.Fatal(err)
	}
	want := result.Set{
		Machine: result.Machine{
			CPU: "Quick", CPUs: 2, Memory: 1024, System: "linux/amd64", SyncMicros: 90.5,
			Versions: map[string]string{"go": "go1.26.8", "postgres": "18.1", "sqlite": "3.54.1"},
		},
		Figures: []result.Figure{{Name: "hot", What: "a, against b", Value: 90, Text: "90.0", Goal: "≥ 60", Bound: 60, OK: true}},
		Benchmarks: []result.Benchmark{
			{Name: "Append", Keys: []result.Key{{"store", "mem"}, {"writers", "16"}}, Values: map[string]float64{"ns/op": 8104, "events/s": 123457, "p50-ms": 0.7}},
			{Name: "Sync", Values: map[string]float64{"ns/op": 90000}},
			{Name: "Project", Keys: []result.Key{{"store", "mem"}, {"mode", "catch-up"}}, Values: map[string]float64{"ns/op": 1}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if w := got.Benchmarks[0].Get("writers"); w != "16" {
		t.Errorf("writers is %q", w)
	}
	if got.Benchmarks[1].Get("writers") != "" || got.Benchmarks[1].Has("p50-ms") || !got.Benchmarks[0].Has("p50-ms") {
		t.Error("Get and Has do not agree with the line")
	}
}

func TestReadReportsTheLineOfAnError(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"BenchmarkAppend-2  	 1000	 8103", `out:2: "BenchmarkAppend-2`},
		{"BenchmarkAppend-2  	 1000	 8103 ns/op 7", "is not a benchmark result"},
		{"BenchmarkAppend-2  	 1000	 many ns/op", `out:2: BenchmarkAppend-2: "many" before ns/op is not a number`},
		{"--- FAIL: BenchmarkAppend/store=mem", "out:2: "},
		{"FAIL	github.com/thalo-go/es/bench", "out:2: "},
		{`{"Figure":`, "out:2: "},
	} {
		err := new(result.Set).Read("out", strings.NewReader("go: go1.26\n"+c.line+"\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q in it", c.line, err, c.want)
		}
	}
}

func TestReachIsAboveOneIfTheFigureIsBetterThanItsGoal(t *testing.T) {
	if r := (result.Figure{Value: 10, Bound: 5}).Reach(); r != 2 {
		t.Errorf("the reach of twice the minimum is %v", r)
	}
	if r := (result.Figure{Value: 10, Bound: 5, Most: true}).Reach(); r != 0.5 {
		t.Errorf("the reach of twice the maximum is %v", r)
	}
}
