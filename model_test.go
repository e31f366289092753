package es_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// TestModel runs random commands through several Repos on one faulty store, and compares every result with the simplest
// implementation that keeps the promises: a list of events per account.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t)
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"execute": m.execute,
			"expect":  m.expect,
			"repeat":  m.repeat,
			"load":    m.load,
			"loadAt":  m.loadAt,
		})
	})
}

var (
	modelAccounts = []string{"ann", "bob", "cem"}
	modelIDs      = []string{"red", "green", "blue", "white"}
	errBroken     = errors.New("the disk is full")
)

// fault is what happens to one Append.
type fault int

const (
	sound       fault = iota
	intrusion         // another writer comes in between
	lostRace          // a conflict, though nothing was written: some databases cannot tell
	broken            // an error before the write
	unknown           // nothing was written, and the store does not know it
	unwitnessed       // all was written, and the store does not know it
)

// flaky is a store with a sequence of faults. It serves one command at a time.
type flaky struct {
	es.Store
	faults  []fault
	intrude func(stream es.Stream)
}

func (f *flaky) Append(ctx context.Context, appends ...es.Append) (es.Position, error) {
	var next fault
	if len(f.faults) > 0 {
		next, f.faults = f.faults[0], f.faults[1:]
	}
	if len(appends[0].Events) == 0 && (next == intrusion || next == lostRace) {
		next = sound // only asks whether the command is there, which is no race
	}
	switch next {
	case intrusion:
		f.intrude(appends[0].Stream)
	case lostRace:
		return 0, &es.ConflictError{Stream: appends[0].Stream, Expected: appends[0].Expected}
	case broken:
		return 0, errBroken
	case unknown:
		return 0, fmt.Errorf("flaky: %w", es.ErrUnknownOutcome)
	case unwitnessed:
		if _, err := f.Store.Append(ctx, appends...); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("flaky: %w", es.ErrUnknownOutcome)
	}
	return f.Store.Append(ctx, appends...)
}

// history is the model of one account.
type history struct {
	events   []account.Event
	commands map[string]es.Version // the last version that each caused; all cause one event
}

func (h *history) version() es.Version { return es.Version(len(h.events)) }

func (h *history) at(version es.Version) (a account.Account) {
	for _, e := range h.events[:version] {
		a = account.Rules{}.Evolve(a, e)
	}
	return a
}

// model is the expected state of the bank.
type model struct {
	t       *testing.T
	log     *es.Mem
	store   *flaky
	repos   []*bank
	history map[string]*history
	cash    int64 // what customers paid in less what they took out, by the answers they had
	intrude account.Command
}

func newModel(t *testing.T) *model {
	m := &model{t: t, log: new(es.Mem), history: map[string]*history{}}
	m.store = &flaky{Store: m.log, intrude: m.intrusion}
	cached, uncached, snapshots, both := newBank(m.store), newBank(m.store), newBank(m.store), newBank(m.store)
	uncached.CacheSize, snapshots.CacheSize = -1, -1
	snapshots.Snapshots, snapshots.SnapshotEvery = m.log, 2
	both.Snapshots, both.SnapshotEvery = m.log, 2
	both.CacheSize = 1 // so that states come and go
	m.repos = []*bank{cached, uncached, snapshots, both}
	for _, id := range modelAccounts {
		m.history[id] = &history{commands: map[string]es.Version{}}
	}
	opened(t, cached, "ann", 30)
	m.history["ann"].events = []account.Event{account.Opened{Owner: "Ada"}, account.Deposited{Amount: 30}}
	m.cash = 30
	return m
}

func (m *model) close() {
	for _, repo := range m.repos {
		repo.Close(context.Background())
	}
}

var (
	modelAmount  = rapid.Int64Range(0, 40)
	modelFaults  = rapid.SliceOfN(rapid.SampledFrom([]fault{sound, intrusion, lostRace, broken, unknown, unwitnessed}), 0, 3)
	modelCommand = rapid.OneOf(
		rapid.Map(modelAmount, func(n int64) account.Command { return account.Deposit{Amount: n} }),
		rapid.Map(modelAmount, func(n int64) account.Command { return account.Withdraw{Amount: n} }),
		rapid.SampledFrom([]account.Command{account.Open{Owner: "Ada"}, account.Close{}}),
	)
)

// draw chooses an account, a Repo and faults.
func (m *model) draw(t *rapid.T) (id string, repo *bank) {
	id = rapid.SampledFrom(modelAccounts).Draw(t, "account")
	repo = m.repos[rapid.IntRange(0, len(m.repos)-1).Draw(t, "repo")]
	m.store.faults = modelFaults.Draw(t, "faults")
	if slices.Contains(m.store.faults, intrusion) {
		m.intrude = modelCommand.Draw(t, "intruder")
	}
	return id, repo
}

func (m *model) execute(t *rapid.T) {
	id, repo := m.draw(t)
	m.run(t, repo, id, modelCommand.Draw(t, "command"), "", -1)
}

func (m *model) repeat(t *rapid.T) {
	id, repo := m.draw(t)
	expected := es.Version(-1)
	if rapid.IntRange(0, 3).Draw(t, "expecting") == 0 {
		expected = m.history[id].version()
	}
	m.run(t, repo, id, modelCommand.Draw(t, "command"), rapid.SampledFrom(modelIDs).Draw(t, "command id"), expected)
}

func (m *model) expect(t *rapid.T) {
	id, repo := m.draw(t)
	seen := m.history[id].version() + es.Version(rapid.IntRange(-2, 2).Draw(t, "off by"))
	m.run(t, repo, id, modelCommand.Draw(t, "command"), "", max(0, seen))
}

// run executes a command and compares the result with that of the model. An expected version of -1 means any.
func (m *model) run(t *rapid.T, repo *bank, id string, c account.Command, commandID string, expected es.Version) {
	var options []es.ExecuteOption
	if commandID != "" {
		options = append(options, es.CommandID(commandID))
	}
	if expected >= 0 {
		options = append(options, es.ExpectVersion(expected))
	}
	faults := m.store.faults
	result, err := repo.Execute(m.t.Context(), id, c, options...)
	var last fault // of this command
	if n := len(faults) - len(m.store.faults); n > 0 {
		last = faults[n-1]
	}
	m.store.faults = nil

	switch {
	case last == broken:
		if !errors.Is(err, errBroken) {
			t.Fatalf("%T %+v: %v; want the store's error", c, result, err)
		}
		return
	case errors.Is(err, es.ErrUnknownOutcome):
		if last != unknown && last != unwitnessed {
			t.Fatalf("%T: %v, though the store knew", c, err)
		}
		if last == unwitnessed {
			_, _ = m.decide(id, c, commandID, expected) // its result is lost
		}
		if commandID != "" {
			m.run(t, repo, id, c, commandID, expected) // as the error says: send it again
		}
		return
	case last == unknown:
		t.Fatalf("%T: %+v, %v; want ErrUnknownOutcome", c, result, err)
	}
	want, wantErr := m.decide(id, c, commandID, expected)
	if message(err) != message(wantErr) {
		t.Fatalf("%T on %s: %v; want %v", c, id, err, wantErr)
	}
	want.Position = m.position(id, want.Version)
	if err != nil {
		want = bankResult{}
	}
	if diff := cmp.Diff(want, result); diff != "" {
		t.Fatalf("%T on %s: %s", c, id, diff)
	}
}

// message returns the part of an error that must agree: the text of a refusal, or the version of a conflict.
func message(err error) string {
	var conflict *es.ConflictError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &conflict):
		return conflict.Error()
	}
	return err.Error()
}

// decide applies a command to the model.
func (m *model) decide(id string, c account.Command, commandID string, expected es.Version) (bankResult, error) {
	h := m.history[id]
	if v, found := h.commands[commandID]; found {
		return bankResult{Versioned: versioned(h.at(v), v), Events: h.events[v-1 : v : v], Repeated: true}, nil
	}
	if expected >= 0 && expected != h.version() {
		return bankResult{}, &es.ConflictError{Stream: es.Stream{Kind: "account", ID: id}, Expected: expected}
	}
	events, err := account.Rules{}.Decide(h.at(h.version()), c)
	if err != nil {
		return bankResult{}, err
	}
	for _, e := range events {
		h.events = append(h.events, e)
		m.cash += worth(e)
	}
	if commandID != "" && len(events) > 0 {
		h.commands[commandID] = h.version()
	}
	return bankResult{Versioned: versioned(h.at(h.version()), h.version()), Events: events}, nil
}

func worth(e account.Event) int64 {
	switch e := e.(type) {
	case account.Deposited:
		return e.Amount
	case account.Withdrawn:
		return -e.Amount
	}
	return 0
}

// intrusion appends to the account as another program, without faults.
func (m *model) intrusion(stream es.Stream) {
	before := m.history[stream.ID].version()
	result, err := m.decide(stream.ID, m.intrude, "", -1)
	if err != nil || len(result.Events) == 0 {
		return
	}
	r, err := account.Codec.Encode(result.Events[0])
	if err == nil {
		_, err = m.log.Append(m.t.Context(), es.Append{Stream: stream, Expected: before, Events: []es.Record{r}})
	}
	if err != nil {
		panic(err)
	}
}

// position returns the position of a version of an account.
func (m *model) position(id string, version es.Version) es.Position {
	if version == 0 {
		return 0
	}
	return stored(m.t, m.log, es.Stream{Kind: "account", ID: id})[version-1].Position
}

func (m *model) load(t *rapid.T) {
	id, repo := m.draw(t)
	at, err := repo.Load(m.t.Context(), id)
	a, version := at.State, at.Version
	h := m.history[id]
	if want := h.at(h.version()); err != nil || a != want || version != h.version() {
		t.Fatalf("load %s: %+v, version %d, %v; want %+v, version %d", id, a, version, err, want, h.version())
	}
}

func (m *model) loadAt(t *rapid.T) {
	id, repo := m.draw(t)
	h := m.history[id]
	version := es.Version(rapid.IntRange(0, len(h.events)+1).Draw(t, "version"))
	at, err := repo.LoadAt(m.t.Context(), id, version)
	a := at.State
	if version > h.version() {
		if !errors.Is(err, es.ErrInvalid) {
			t.Fatalf("load %s at %d of %d: %+v, %v; want ErrInvalid", id, version, h.version(), a, err)
		}
		return
	}
	if want := h.at(version); err != nil || a != want {
		t.Fatalf("load %s at %d: %+v, %v; want %+v", id, version, a, err, want)
	}
}

// check compares the stored events with the model.
func (m *model) check(t *rapid.T) {
	var sum int64
	for _, id := range modelAccounts {
		var events []account.Event
		for _, r := range stored(m.t, m.log, es.Stream{Kind: "account", ID: id}) {
			e, err := account.Codec.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
		if diff := cmp.Diff(m.history[id].events, events); diff != "" {
			t.Fatalf("the events of %s: %s", id, diff)
		}
		cents, _ := balance(m.t, m.log, id)
		sum += cents
	}
	if sum != m.cash {
		t.Fatalf("the accounts hold %d cents, the customers gave %d", sum, m.cash)
	}
}

func versioned(a account.Account, v es.Version) es.Versioned[account.Account] {
	return es.Versioned[account.Account]{State: a, Version: v}
}
