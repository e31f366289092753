package kafka_test

import (
	"math"
	"testing"

	"github.com/thalo-go/es/kafka"
)

// TestPartitionsAreThoseOfJavasClients has the cases of org.apache.kafka.common.utils.UtilsTest.
func TestPartitionsAreThoseOfJavasClients(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got, want := kafka.PartitionFor([]byte(key), math.MaxInt32), hash&math.MaxInt32; got != want {
			t.Errorf("%q goes to %d, want %d", key, got, want)
		}
	}
}
