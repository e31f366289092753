package kafka_test

import (
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
)

func TestARelayPublishesEachRecordOnce(t *testing.T) {
	t.Parallel()
	encodings(t, func(t *testing.T, encoding kafka.Encoding) {
		testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
			log := new(es.Mem)
			fill(t, log, 1000)
			r := relay(b, log)
			r.Encoding, r.Batch = encoding, 300
			run := runRelay(t, r)
			for range 20 {
				run.reaches(fill(t, log, 10))
			}
			run.mustStop()
			fill(t, log, 100)
			again := relay(b, log)
			again.Encoding = encoding
			run = runRelay(t, again)
			run.reaches(fill(t, log, 1))
			run.mustStop()
			audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
		})
	})
}
