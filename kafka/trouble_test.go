package kafka_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/testserver"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
)

// ends waits for a relay to stop with an error that has some words in it.
func (r *running) ends(with ...string) {
	r.t.Helper()
	_ = r.failure(with...) // only its text counts
}

// failure does the same, and returns the error.
func (r *running) failure(with ...string) error {
	r.t.Helper()
	err := r.wait()
	for _, part := range with {
		if err == nil || !strings.Contains(err.Error(), part) {
			r.t.Fatalf("the relay ended with %v\nwant something with %q", err, part)
		}
	}
	return err
}

func TestAnInvalidCheckpointTopicIsRefused(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		fill(t, log, 10)
		r := relay(b, log)
		r.Topics = kafka.Topics{}
		runRelay(t, r).ends("checkpoint topic", "does not exist", "compact")
		makeTopic(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix), 2, map[string]string{"cleanup.policy": "compact"})
		runRelay(t, relay(b, log)).ends("has 2 partitions", "create it with one")
		deleteTopic(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix))
		makeTopic(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix), 1, map[string]string{"cleanup.policy": "delete"})
		runRelay(t, relay(b, log)).ends("cleanup.policy=delete", "set it to compact")
		deleteTopic(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix))
		makeTopic(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix), 1, map[string]string{"cleanup.policy": "compact"})
		r = relay(b, log)
		r.Topics = kafka.Topics{}
		runRelay(t, r).ends("topic "+b.Prefix+".", "does not exist", "Topics")
		if all := published(t, b.Bootstrap, b.Prefix+"."); len(all) != 0 {
			t.Errorf("%d records were published", len(all))
		}
	})
}

func TestACheckpointThatIsLostIsNoticed(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		run := runRelay(t, relay(b, log))
		last := fill(t, log, 200)
		run.reaches(last)
		run.mustStop()
		deleteTopic(t, b.Bootstrap, kafka.CheckpointTopic(b.Prefix))
		runRelay(t, relay(b, log)).ends(" already, the checkpoint of relay", "Reset")
		if err := relay(b, log).Reset(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		publishMore(t, relay(b, log), 100)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

func TestTwoStoresShareTopicsAndCheckpointTopic(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	one, two := new(es.Mem), new(es.Mem)
	first := runRelay(t, relay(b, one))
	first.reaches(fill(t, one, 50))
	second := runRelay(t, relay(b, two))
	second.reaches(fill(t, two, 50))
	first.reaches(fill(t, one, 50))
	first.mustStop()
	second.mustStop()
	byStore := map[string][]seen{}
	for _, s := range published(t, b.Bootstrap, b.Prefix+".") {
		byStore[s.store] = append(byStore[s.store], s)
	}
	for _, log := range []es.Log{one, two} {
		compare(t, log.ID(), recorded(t, log, es.Filter{}), byStore[log.ID()])
	}
}

// restored is a log whose database was restored from an older copy.
type restored struct {
	*es.Mem
	id string
}

func (r restored) ID() string { return r.id }

func TestADatabaseRestoredFromAnOlderCopyStopsTheRelay(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		publishMore(t, relay(b, log), 100)

		older := restored{new(es.Mem), log.ID()}
		fill(t, older, 50)
		var ahead *es.AheadError
		if err := runRelay(t, relay(b, older)).failure("restored from a backup"); !errors.As(err, &ahead) || ahead.After != 100 || ahead.Head != 50 {
			t.Errorf("ended with %v, want an AheadError", err)
		}
		fill(t, older, 100)
		runRelay(t, relay(b, older)).ends("database restored and written to since", "Reset")
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})

		r := relay(b, older)
		if err := r.Reset(t.Context(), 151); !errors.Is(err, es.ErrInvalid) {
			t.Errorf("reset to a position beyond the log: %v", err)
		}
		if err := r.Reset(t.Context(), 150); err != nil {
			t.Fatal(err)
		}
		publishMore(t, r, 1)
		if all := published(t, b.Bootstrap, b.Prefix+"."); len(all) != 101 {
			t.Errorf("%d records are published, want 100 and the one behind the reset", len(all))
		}
	})
}

func TestARecordThatIsTooLargeStopsTheRelayOrIsParked(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		makeTopic(t, b.Bootstrap, b.Prefix+".account", 3, map[string]string{"max.message.bytes": "20000"})
		makeTopic(t, b.Bootstrap, b.Prefix+".transfer", 3, nil)
		fill(t, log, 100)
		big := es.Stream{Kind: "account", ID: "big"}
		for _, size := range []int{1000, 15000, 30000, 10, 18000, 25000, 20} {
			if _, err := log.Append(t.Context(), es.Append{Stream: big, Expected: es.AnyVersion, Events: []es.Record{{Type: "noted", Data: make([]byte, size)}}}); err != nil {
				t.Fatal(err)
			}
		}
		last := fill(t, log, 100)

		var large *kafka.TooLargeError
		if err := runRelay(t, relay(b, log)).failure("account/big/3", "20000", "max.message.bytes"); !errors.As(err, &large) || large.Record.Version != 3 || large.Limit != 20000 || large.Size < 30000 {
			t.Fatalf("ended with %v, want a TooLargeError", err)
		}
		r := relay(b, log)
		r.TooLarge, r.Batch = es.Park, 30
		run := runRelay(t, r)
		run.reaches(last)
		if got := r.Stats().Parked; len(got) != 1 || got[0].Stream != big || got[0].Version != 3 {
			t.Errorf("parked is %+v", got)
		}
		run.mustStop()
		if all := published(t, b.Bootstrap, b.Prefix+"."); len(all) != 200+2 {
			t.Errorf("%d records are published, want all but 5", len(all))
		}

		setting(t, b.Bootstrap, b.Prefix+".account", "max.message.bytes", "28000")
		r = relay(b, log)
		r.TooLarge = es.Park
		run = runRelay(t, r)
		run.reaches(fill(t, log, 1))
		if got := r.Stats().Parked; len(got) != 1 || got[0].Version != 3 {
			t.Errorf("parked is %+v", got)
		}
		run.mustStop()

		setting(t, b.Bootstrap, b.Prefix+".account", "max.message.bytes", "40000")
		r = relay(b, log)
		r.Batch = 2
		run = runRelay(t, r)
		run.reaches(fill(t, log, 1))
		if got := r.Stats().Parked; len(got) != 0 {
			t.Errorf("parked is %+v", got)
		}
		run.mustStop()
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

func TestATopicThatIsDeletedStopsTheRelay(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		publishMore(t, relay(b, log), 200)
		deleteTopic(t, b.Bootstrap, b.Prefix+".account")
		fill(t, log, 100)
		runRelay(t, relay(b, log)).ends("topic "+b.Prefix+".account is gone", "Reset")
		makeTopic(t, b.Bootstrap, b.Prefix+".account", 3, nil)
		runRelay(t, relay(b, log)).ends("topic "+b.Prefix+".account was deleted and created again", "Reset")

		deleteTopic(t, b.Bootstrap, b.Prefix+".account")
		deleteTopic(t, b.Bootstrap, b.Prefix+".transfer")
		if err := relay(b, log).Reset(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		publishMore(t, relay(b, log), 1)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
	})
}

func TestStreamsStayInOrderWhenATopicGrows(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		run := runRelay(t, relay(b, log))
		run.reaches(fill(t, log, 300))
		c := watcher(t, b.Bootstrap)
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = b.Prefix+".account", 8
		request := kmsg.NewCreatePartitionsRequest()
		request.Topics = append(request.Topics, topic)
		if answer, err := request.RequestWith(t.Context(), c); err != nil || answer.Topics[0].ErrorCode != 0 {
			t.Fatalf("grow: %v, %+v", err, answer)
		}
		run.reaches(fill(t, log, 100))
		run.mustStop()
		publishMore(t, relay(b, log), 100)
		audit(t, b.Bootstrap, b.Prefix, log, es.Filter{}) // a stream in two partitions is a complaint
	})
}

func TestAFilterAndARoute(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	filter := es.Filter{Types: []string{"deposited", "withdrawn"}}
	r := relay(b, log)
	r.Filter, r.Batch = filter, 50
	r.Route = func(r es.Record) string { return b.Prefix + ".all" }
	run := runRelay(t, r)
	fill(t, log, 500)
	at, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "account", ID: "1"}, Expected: es.AnyVersion, Events: []es.Record{{Type: "deposited"}}})
	if err != nil {
		t.Fatal(err)
	}
	run.reaches(at)
	run.mustStop()
	audit(t, b.Bootstrap, b.Prefix, log, filter)
	bad := relay(b, log)
	bad.Name, bad.Route = "bad", func(es.Record) string { return "bank account" }
	runRelay(t, bad).ends(`topic "bank account"`, "Route")
}

func TestTheRelayRecoversFromNetworkErrors(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name string
		on   kmsg.Key
		err  *kerr.Error
	}{
		{"producer id, coordinator loading", kmsg.InitProducerID, kerr.CoordinatorLoadInProgress},
		{"producer id, another transaction ending", kmsg.InitProducerID, kerr.ConcurrentTransactions},
		{"producer id, not the coordinator", kmsg.InitProducerID, kerr.NotCoordinator},
		{"add partitions, not the coordinator", kmsg.AddPartitionsToTxn, kerr.NotCoordinator},
		{"add partitions, another transaction ending", kmsg.AddPartitionsToTxn, kerr.ConcurrentTransactions},
		{"add partitions, in no state for it", kmsg.AddPartitionsToTxn, kerr.InvalidTxnState},
		{"produce, not the leader", kmsg.Produce, kerr.NotLeaderForPartition},
		{"produce, timed out although it was done", kmsg.Produce, kerr.RequestTimedOut},
		{"produce, too few replicas", kmsg.Produce, kerr.NotEnoughReplicas},
		{"produce, too few replicas although it was done", kmsg.Produce, kerr.NotEnoughReplicasAfterAppend},
		{"produce, unknown producer", kmsg.Produce, kerr.UnknownProducerID},
		{"produce, out of order", kmsg.Produce, kerr.OutOfOrderSequenceNumber},
		{"produce, an old epoch", kmsg.Produce, kerr.InvalidProducerEpoch},
		{"produce, corrupt", kmsg.Produce, kerr.CorruptMessage},
		{"end, not the coordinator", kmsg.EndTxn, kerr.NotCoordinator},
		{"end, coordinator away", kmsg.EndTxn, kerr.CoordinatorNotAvailable},
		{"end, in no state for it", kmsg.EndTxn, kerr.InvalidTxnState},
		{"end, an old epoch", kmsg.EndTxn, kerr.InvalidProducerEpoch},
		{"end, shut out", kmsg.EndTxn, kerr.ProducerFenced},
		{"describe topics, an error", kmsg.Metadata, kerr.LeaderNotAvailable},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			b := testserver.FakeBroker(t, kafkatest.Options{})
			log := new(es.Mem)
			r := relay(b, log)
			r.Leases, r.Encoding = log, kafka.Compact
			run := runRelay(t, r)
			run.reaches(fill(t, log, 50))
			handle := b.Fake.Fail(fault.on, fault.err, 2)
			for range 3 {
				run.reaches(fill(t, log, 50))
			}
			run.mustStop()
			again := relay(b, log)
			again.Encoding = kafka.Compact
			run = runRelay(t, again)
			run.reaches(fill(t, log, 50))
			run.mustStop()
			if handle.Hits() == 0 {
				t.Error("the fault did not come about")
			}
			audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
		})
	}
}

func TestRequestsAndAnswersThatAreLost(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]kmsg.Key{"producer id": kmsg.InitProducerID, "add partitions": kmsg.AddPartitionsToTxn, "produce": kmsg.Produce, "end": kmsg.EndTxn} {
		for what, lose := range map[string]func(*kafkatest.Broker, kmsg.Key) <-chan struct{}{"request": (*kafkatest.Broker).LoseRequest, "answer": (*kafkatest.Broker).LoseAnswer} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				b := testserver.FakeBroker(t, kafkatest.Options{})
				log := new(es.Mem)
				r := relay(b, log)
				r.Leases = log
				run := runRelay(t, r)
				run.reaches(fill(t, log, 50))
				if request == kmsg.InitProducerID {
					run.mustStop()
					run = runRelay(t, relay(b, log))
				}
				lost := lose(b.Fake, request)
				for range 3 {
					run.reaches(fill(t, log, 50))
				}
				if request == kmsg.InitProducerID {
					run.mustStop()
					run = runRelay(t, relay(b, log))
					run.reaches(fill(t, log, 50))
				}
				select {
				case <-lost:
				case <-time.After(patience):
					t.Error("nothing was lost")
				}
				run.mustStop()
				audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
			})
		}
	}
}

func TestAKeepAliveKeepsTheTransactionalID(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	r := relay(b, log)
	r.KeepAlive = 50 * time.Millisecond
	run := runRelay(t, r)
	run.reaches(fill(t, log, 10))
	before := r.Stats().Transactions
	eventually(t, "transactions go on", func() bool { return r.Stats().Transactions >= before+3 })
	run.mustStop()
	audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
}

func TestAnIdleRelaySendsNothing(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	r := relay(b, log)
	run := runRelay(t, r)
	run.reaches(fill(t, log, 10))
	var mu sync.Mutex
	var heard []string
	b.Fake.Cluster().ControlKey(-1, func(request kmsg.Request) (kmsg.Response, error, bool) {
		switch key := kmsg.Key(request.Key()); key {
		case kmsg.Metadata, kmsg.ApiVersions, kmsg.FindCoordinator: // librdkafka looks at the cluster now and then
		default:
			mu.Lock()
			heard = append(heard, key.Name())
			mu.Unlock()
		}
		return nil, nil, false
	})
	listen := func(d time.Duration) []string {
		mu.Lock()
		heard = nil
		mu.Unlock()
		time.Sleep(d) // of nothing, which is what is waited for
		mu.Lock()
		defer mu.Unlock()
		return heard
	}
	eventually(t, "requests in flight are answered", func() bool { return len(listen(100*time.Millisecond)) == 0 })
	before := r.Stats()
	if heard := listen(500 * time.Millisecond); len(heard) > 0 || r.Stats().Transactions != before.Transactions {
		t.Errorf("while there was nothing to do it asked for %q, in %d transactions", heard, r.Stats().Transactions-before.Transactions)
	}
	run.mustStop()
}

func TestTheRelayWaitsForAnUnavailableCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("short mode: waits until clients connect again")
	}
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{Folder: t.TempDir()})
	log := new(es.Mem)
	b.Fake.Cut()
	r := relay(b, log)
	run := runRelay(t, r)
	fill(t, log, 100)
	eventually(t, "the relay has noticed", func() bool { return r.Stats().Error != "" })
	b.Fake.Heal()
	run.reaches(fill(t, log, 100))
	if err := b.Fake.Restart(); err != nil {
		t.Fatal(err)
	}
	run.reaches(fill(t, log, 100))
	b.Fake.Cut()
	fill(t, log, 100)
	run.mustStop() // while the cluster is away
	b.Fake.Heal()
	publishMore(t, relay(b, log), 1)
	audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
}

func TestAtLeastOnceRepeatsButLosesNothing(t *testing.T) {
	t.Parallel()
	testserver.EachBroker(t, func(t *testing.T, b testserver.Broker) {
		log := new(es.Mem)
		plain := func() *kafka.Relay {
			r := relay(b, log)
			r.Leases, r.AtLeastOnce, r.Batch, r.Encoding = log, log, 50, kafka.Compact
			return r
		}
		for _, step := range []string{"batch", "produced", "acknowledged", "acknowledged"} {
			fill(t, log, 100)
			dying := plain()
			dying.Hook(crashAt(step, 2))
			if err := runRelay(t, dying).wait(); !errors.Is(err, errCrash) {
				t.Fatalf("at %q: ended with %v", step, err)
			}
		}
		run := runRelay(t, plain())
		run.reaches(fill(t, log, 100))
		if b.Fake != nil {
			b.Fake.Fail(kmsg.Produce, kerr.OutOfOrderSequenceNumber, 1)
			run.reaches(fill(t, log, 100))
			b.Fake.LoseAnswer(kmsg.Produce)
			run.reaches(fill(t, log, 100))
		}
		run.mustStop()
		all := published(t, b.Bootstrap, b.Prefix+".")
		first, again := make(map[es.Position]bool), 0
		var once []seen
		for _, s := range all {
			if first[s.record.Position] {
				again++
				continue
			}
			first[s.record.Position] = true
			once = append(once, s)
		}
		compare(t, log.ID(), recorded(t, log, es.Filter{}), once)
		if again == 0 {
			t.Error("nothing is there twice: the crashes have not come about")
		}
		r := plain()
		if err := r.Reset(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		if at, err := log.LoadCheckpoint(t.Context(), "relay/"+b.Prefix+"/relay"); at != 10 || err != nil {
			t.Errorf("after a reset to 10 the checkpoint is %d, %v", at, err)
		}
	})
}

func TestSettingsThatBreakThePromiseAreRefused(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	for setting, value := range map[string]any{
		"acks": 1, "request.required.acks": 0, "enable.idempotence": false, "transactional.id": "mine", "partitioner": "consistent", "isolation.level": "read_uncommitted",
		"{topic}.acks": 1, "go.delivery.reports": true, "message.max.bytes": 100, "group.id": "g", "allow.auto.create.topics": true,
	} {
		r := relay(b, log)
		r.Cluster.Config[setting] = value
		if err := r.Run(t.Context()); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), setting) || !strings.Contains(err.Error(), "leave it out") {
			t.Errorf("with %s=%v: %v", setting, value, err)
		}
	}
	for name, change := range map[string]func(*kafka.Relay){
		"Log": func(r *kafka.Relay) { r.Log = nil }, "prefix": func(r *kafka.Relay) { r.Prefix = "a b" }, "name": func(r *kafka.Relay) { r.Name = "a/b" },
		"bootstrap.servers": func(r *kafka.Relay) { r.Cluster.Config = nil }, "Encoding": func(r *kafka.Relay) { r.Encoding = 7 }, "negative": func(r *kafka.Relay) { r.Batch = -1 },
		"AtLeastOnce": func(r *kafka.Relay) { r.AtLeastOnce, r.TooLarge = log, es.Park }, "no.such.setting": func(r *kafka.Relay) { r.Cluster.Config["no.such.setting"] = 1 },
	} {
		r := relay(b, log)
		change(r)
		if err := r.Run(t.Context()); !errors.Is(err, es.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for setting, value := range map[string]any{"acks": -1, "request.required.acks": "all", "enable.idempotence": "true", "compression.type": "zstd", "linger.ms": 5, "batch.size": 2_000_000} {
		r := relay(b, log)
		r.Cluster.Config[setting] = value
		publishMore(t, r, 1)
	}
}

// While a partition's leader changes, an answer about its offsets may have neither an offset nor an error.
// A relay that takes this for an empty checkpoint topic overwrites its checkpoint.
func TestAnAnswerWithoutAnOffsetIsNotALostCheckpoint(t *testing.T) {
	t.Parallel()
	b := testserver.FakeBroker(t, kafkatest.Options{})
	log := new(es.Mem)
	publishFifty := func() {
		run := runRelay(t, relay(b, log))
		run.reaches(fill(t, log, 50))
		run.mustStop()
	}
	publishFifty()
	var answered atomic.Int32
	b.Fake.Cluster().ControlKey(int16(kmsg.ListOffsets), func(request kmsg.Request) (kmsg.Response, error, bool) {
		if answered.Add(1) > 2 {
			return nil, nil, false
		}
		b.Fake.Cluster().KeepControl()
		asked := request.(*kmsg.ListOffsetsRequest)
		answer := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, topic := range asked.Topics {
			to := kmsg.NewListOffsetsResponseTopic()
			to.Topic = topic.Topic
			for _, p := range topic.Partitions {
				at := kmsg.NewListOffsetsResponseTopicPartition()
				at.Partition, at.Offset = p.Partition, int64(confluent.OffsetInvalid)
				to.Partitions = append(to.Partitions, at)
			}
			answer.Topics = append(answer.Topics, to)
		}
		return answer, nil, true
	})
	publishFifty()
	if answered.Load() < 2 {
		t.Error("the fault did not come about")
	}
	audit(t, b.Bootstrap, b.Prefix, log, es.Filter{})
}
