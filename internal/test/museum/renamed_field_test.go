package museum_test

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/internal/test/recorder"
)

// The failure: a release renames a field of an event in Go. Its tests write and read with the same type, so all of them pass. What is stored has
// the old name, and reads as zero.
//
// Not here: a test compares the events with a file of every shape that was ever stored, and each stored sample is read and compared.
func TestRenamedField(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events.json")
	must(t, flag.Set("update-schemas", "true"))
	estest.TestSchemas(t, codecBefore, file)
	must(t, flag.Set("update-schemas", "false"))
	samples := []any{depositedAfter{Cents: 60}}
	ours(t, func(t *testing.T, p place) error {
		return zeroAfterARelease(t, p.open(t), func(t testing.TB) {
			estest.TestCodec(t, codecAfter, samples)
			estest.TestSchemas(t, codecAfter, file)
		})
	})
	control(t, "a test that writes and reads", func(t *testing.T) error {
		return zeroAfterARelease(t, inMemory().open(t), func(t testing.TB) { estest.TestCodec(t, codecAfter, samples) })
	})
}

// The event before the release, and after it.
type (
	depositedBefore struct{ Amount int64 }
	depositedAfter  struct{ Cents int64 }
)

var (
	codecBefore = es.JSON(map[string]any{"deposited": depositedBefore{}})
	codecAfter  = es.JSON(map[string]any{"deposited": depositedAfter{}})
)

// zeroAfterARelease looks for a deposit that reads as zero in a release whose tests pass.
func zeroAfterARelease(t *testing.T, log es.Log, tests func(t testing.TB)) error {
	r, err := codecBefore.Encode(depositedBefore{Amount: 60})
	must(t, err)
	_, err = log.Append(t.Context(), es.Append{Stream: account("ann"), Events: []es.Record{r}})
	must(t, err)
	tested := &recorder.T{TB: t}
	tests(tested)
	if tested.Failed() {
		return nil // it is not released
	}
	for r, err := range log.Read(t.Context(), account("ann"), 0) {
		must(t, err)
		event, err := codecAfter.Decode(r)
		must(t, err)
		if got := event.(depositedAfter).Cents; got != 60 {
			return fmt.Errorf("the tests pass, and the deposit of 60 reads as %d", got)
		}
	}
	return nil
}
