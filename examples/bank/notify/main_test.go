package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/examples/bank/notices"
	"github.com/thalo-go/es/kafka"
	"github.com/thalo-go/es/kafka/kafkatest"
	"github.com/thalo-go/es/sqlite"
)

// The child process is this test binary.
const brokersVariable, storeVariable = "NOTIFY_BROKERS", "NOTIFY_STORE"

const lease = time.Second

func TestMain(m *testing.M) {
	if brokers := os.Getenv(brokersVariable); brokers != "" {
		if err := run(context.Background(), brokers, os.Getenv(storeVariable), false, lease); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEachMovementMakesOneNoticeHoweverOftenTheProgramIsKilled(t *testing.T) {
	broker := kafkatest.Start(t, kafkatest.Options{Topics: map[string]int{notices.Topic: 3}})
	store := new(es.Mem)
	relay := &kafka.Relay{Log: store, Prefix: "bank", Topics: kafka.Topics{Partitions: 3}, Cluster: kafka.Cluster{Config: kafka.ConfigMap{"bootstrap.servers": broker.Bootstrap()}}}
	ctx, cancel := context.WithCancel(t.Context())
	relayed := make(chan error, 1)
	go func() { relayed <- relay.Run(ctx) }()

	path := filepath.Join(t.TempDir(), "notices.db")
	accounts := es.NewRepo(store, "account", account.Rules{}, account.Codec)
	do := func(id string, c account.Command) {
		if _, err := accounts.Execute(ctx, id, c); err != nil {
			t.Fatal(err)
		}
	}
	const people, moves = 7, 100
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for i := range people {
		do(fmt.Sprint(i), account.Open{Owner: fmt.Sprintf("number %d", i)})
	}
	var model *sqlite.Store
	for round := range rounds {
		program := start(t, broker.Bootstrap(), path)
		for n := range moves {
			do(fmt.Sprint(n%people), account.Deposit{Amount: 100})
		}
		if round == 0 {
			model = open(t, path)
		}
		await(t, model, func(s notices.Summary) bool { return s.Notices > round*moves+rand.N(moves/2) })
		_ = program.Process.Kill()
		_ = program.Wait()
	}
	if err := run(ctx, broker.Bootstrap(), path, true, lease); err != nil {
		t.Fatal(err)
	}
	// The last run finds no new records.
	if err := run(ctx, broker.Bootstrap(), path, true, lease); err != nil {
		t.Fatal(err)
	}
	s, err := notices.Summarize(ctx, model, 1)
	if err != nil || s.Notices != rounds*moves || s.Cents != int64(rounds*moves*100) || s.Accounts != people {
		t.Errorf("%+v, %v", s, err)
	}
	cancel()
	if err := <-relayed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func start(t *testing.T, brokers, path string) *exec.Cmd {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), executable)
	c.Env = append(os.Environ(), brokersVariable+"="+brokers, storeVariable+"="+path)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	return c
}

// open opens the program's database.
func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// await waits until the read model has the notices. Until the program has created its tables, there are none.
func await(t *testing.T, store *sqlite.Store, far func(notices.Summary) bool) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		s, err := notices.Summarize(t.Context(), store, 0)
		if err == nil && far(s) {
			return
		}
		select {
		case <-limit:
			t.Fatalf("%+v, %v", s, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
