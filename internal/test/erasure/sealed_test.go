package erasure_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver of the database of the keys
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/profiles/profile"
	"github.com/thalo-go/es/internal/test/eventually"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/sealed"
)

// TestSealedValuesAreNowhereInTheClear looks for an address in the files of the log and of the keys, with snapshots, parked records, timers and
// write-ahead logs, and in the topic of a relay. Then it erases it and tries to open every copy.
func TestSealedValuesAreNowhereInTheClear(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, db database) {
		folder := t.TempDir()
		conn, err := sql.Open("sqlite3", filepath.Join(folder, "keys.db")+"?_journal_mode=wal")
		must(t, err)
		t.Cleanup(func() { must(t, conn.Close()) })
		keys, err := sealed.SQLKeys(t.Context(), conn, [32]byte{1})
		must(t, err)
		process := func() *es.Repo[profile.Profile, profile.Command, profile.Event] {
			r := es.NewRepo(db, profile.Kind, profile.Rules{}, profile.Codec)
			r.Snapshots, r.SnapshotEvery = db, 2
			return r
		}
		secret := "ann" + strings.ToLower(rand.Text())
		profiles := process()
		for i, domain := range []string{"com", "org", "net", "eu"} {
			email, err := profile.Seal(t.Context(), keys, "ann", secret+"@example."+domain)
			must(t, err)
			var c profile.Command = profile.ChangeEmail{Email: email}
			if i == 0 {
				c = profile.Register{Email: email}
			}
			_, err = profiles.Execute(t.Context(), "ann", c, es.CommandID(domain))
			must(t, err)
		}
		must(t, profiles.Close(t.Context()))
		must(t, db.project(t.Context(), true, "parks", es.Park, func(r es.Record) error {
			e, err := profile.Codec.Decode(r)
			must(t, err)
			if registered, is := e.(profile.Registered); is {
				text, err := registered.Email.Open(t.Context(), keys)
				if err != nil || !strings.HasPrefix(text, secret) {
					t.Errorf("got %q, %v", text, err)
				}
				return errors.New("the mail server does not answer")
			}
			return nil
		}))
		must(t, db.React(t.Context(), projection.Reaction{
			Name: "reminds", From: projection.Beginning(), Once: true,
			Due:    func(r es.Record) (time.Time, error) { return r.Time.Add(time.Hour), nil },
			Handle: func(context.Context, es.Record) error { return nil },
		}))
		messages := publish(t, db, 4)

		state, err := process().Load(t.Context(), "ann")
		must(t, err)
		values := []profile.Email{state.State.Email}
		for r, err := range db.All(t.Context(), 0, es.Filter{}) {
			must(t, err)
			var e profile.Registered // or EmailChanged, which has the same form
			must(t, json.Unmarshal(r.Data, &e))
			values = append(values, e.Email)
		}
		if len(db.everywhere(values[1].Box)) == 0 || !bytes.Contains(messages, []byte(values[1].Box)) {
			t.Error("the test does not find the sealed value where it is")
		}
		look := func(when string) {
			if found := append(db.everywhere(secret), find(t, folder, secret)...); len(found) > 0 || bytes.Contains(messages, []byte(secret)) {
				t.Errorf("%s: the address is in %v, or in the topic", when, found)
			}
		}
		look("before it is erased")
		for _, v := range values {
			if text, err := v.Open(t.Context(), keys); err != nil || !strings.HasPrefix(text, secret) {
				t.Errorf("before it is erased: %q, %v", text, err)
			}
		}

		result, err := process().Execute(t.Context(), "ann", profile.Forget{})
		if err != nil || !result.State.Email.IsZero() {
			t.Fatalf("got %+v, %v", result, err)
		}
		must(t, keys.Erase(t.Context(), profile.Subject("ann")))
		look("after it was erased")
		for _, v := range values {
			if text, err := v.Open(t.Context(), keys); !errors.Is(err, sealed.ErrErased) || text != "" {
				t.Errorf("after it was erased: %q, %v", text, err)
			}
		}
		if _, err := profile.Seal(t.Context(), keys, "ann", secret); !errors.Is(err, sealed.ErrErased) {
			t.Errorf("a late writer: %v", err)
		}
	})
}

// publish publishes a log with so many records, and returns all that is in the topic.
func publish(t *testing.T, db database, n int) []byte {
	t.Helper()
	broker := kafkatest.Start(t, kafkatest.Options{})
	relay := &kafka.Relay{
		Log: db, Prefix: "erasure", Topics: kafka.Topics{Partitions: 1},
		Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(ctx) }()
	eventually.True(t, "all is published", func() bool { return relay.Stats().Position >= es.Position(n) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.Bootstrap()), kgo.ConsumeTopics("erasure."+profile.Kind), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(t, err)
	defer client.Close()
	var all []byte
	for got := 0; got < n; {
		fetches := client.PollFetches(t.Context())
		must(t, fetches.Err())
		for _, r := range fetches.Records() {
			got++
			all = append(append(all, r.Key...), r.Value...)
			for _, h := range r.Headers {
				all = append(append(all, h.Key...), h.Value...)
			}
		}
	}
	return all
}
