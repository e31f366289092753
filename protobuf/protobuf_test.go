package protobuf_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/wallet"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/internal/test/recorder"
	"github.com/thalo-go/es/protobuf"
)

var at = timestamppb.New(time.Date(2026, 7, 5, 4, 3, 2, 1000, time.UTC))

// samples are events with every field set.
func samples() []proto.Message {
	return []proto.Message{
		&walletpb.Opened{Owner: "Ada"},
		&walletpb.Received{Cents: 1 << 62, Source: &walletpb.Received_Card{Card: "1234"}, At: at},
		&walletpb.Received{Cents: 1, Source: &walletpb.Received_Transfer{Transfer: &walletpb.Transfer{Wallet: "b", Notes: map[string]string{"a": "b", "c": "d"}}}},
		&walletpb.Spent{Cents: 1, Items: []string{"tea", ""}, Reason: walletpb.Reason_REASON_FEE, Card: "1234"},
	}
}

func TestMessagesSurvive(t *testing.T) {
	estest.TestCodec(t, wallet.Codec, samples())
	estest.TestCodec(t, protobuf.New(map[string]proto.Message{"opened": &walletpb.Opened{}, "received": &walletpb.Received{}, "spent": &walletpb.Spent{}}).Exact(), samples())
}

func TestMissingSamplesAreFound(t *testing.T) {
	recorder.Fails(t, func(t testing.TB) { estest.TestCodec(t, wallet.Codec, samples()[:3]) }, `"spent" has no sample`)
	recorder.Fails(t, func(t testing.TB) {
		estest.TestCodec(t, wallet.Codec, []proto.Message{samples()[0], samples()[1], samples()[3]})
	}, "walletpb.Received: transfer: zero or empty in every sample")
	recorder.Fails(t, func(t testing.TB) {
		estest.TestCodec(t, wallet.Codec, append(samples()[:2], &walletpb.Received{Source: &walletpb.Received_Transfer{Transfer: &walletpb.Transfer{Wallet: "b"}}}, samples()[3]))
	}, "walletpb.Received: transfer.notes: zero or empty in every sample")
}

// TestADefectOfMessagesIsFound drops a field of a message.
func TestADefectOfMessagesIsFound(t *testing.T) {
	lossy := es.NewCodec(protobuf.ContentType, map[string]proto.Message{"spent": &walletpb.Spent{}},
		func(v any) ([]byte, error) {
			m := proto.CloneOf(v.(*walletpb.Spent))
			m.Items = nil
			return proto.Marshal(m)
		},
		func(data []byte, v any) error { return proto.Unmarshal(data, v.(proto.Message)) })
	recorder.Fails(t, func(t testing.TB) {
		estest.TestCodec(t, lossy, []proto.Message{&walletpb.Spent{Cents: 1, Items: []string{"tea"}, Reason: walletpb.Reason_REASON_FEE, Card: "1234"}})
	}, "decoded to another value", "tea")
}

func TestEmptyMessages(t *testing.T) {
	for _, event := range []proto.Message{&walletpb.Opened{}, &walletpb.Received{}, &walletpb.Spent{}, &walletpb.Received{Source: &walletpb.Received_Card{}}} {
		r, err := wallet.Codec.Encode(event)
		if err != nil {
			t.Fatal(err)
		}
		back, err := wallet.Codec.Decode(r)
		if err != nil || !proto.Equal(event, back) {
			t.Errorf("%v is decoded to %v, %v", event, back, err)
		}
		if wallet.Codec.ContentType(r) != protobuf.ContentType {
			t.Errorf("the content type is %q", wallet.Codec.ContentType(r))
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		event proto.Message
		says  string
	}{
		"a nil message":          {(*walletpb.Opened)(nil), "opened: the event is a nil"},
		"no message":             {nil, "unknown event"},
		"text that is not UTF-8": {&walletpb.Opened{Owner: "\xff"}, "UTF-8"},
		"another message":        {&walletpb.Transfer{}, "unknown event"},
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := wallet.Codec.Encode(test.event); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Encode returned %v, %v, which does not say %q", r, err, test.says)
			}
		})
	}
}

// embeds would lose Extra.
type embeds struct {
	*walletpb.Opened
	Extra int
}

type embedsValue struct {
	walletpb.Opened
	Extra int
}

func TestNewRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		events map[string]proto.Message
		says   string
	}{
		"a dynamic message":                   {map[string]proto.Message{"a": &dynamicpb.Message{}}, "not a pointer to a generated message"},
		"a type that embeds a message":        {map[string]proto.Message{"a": &embeds{}}, "not a pointer to a generated message"},
		"a value with a message":              {map[string]proto.Message{"a": embeds{}}, "not a pointer to a generated message"},
		"a type that embeds a message itself": {map[string]proto.Message{"a": &embedsValue{}}, "not a pointer to a generated message"},
		"nothing":                             {map[string]proto.Message{"a": nil}, "no event"},
		"two names of one message":            {map[string]proto.Message{"a": &walletpb.Opened{}, "b": (*walletpb.Opened)(nil)}, "two names"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if said, _ := recover().(string); !strings.Contains(said, test.says) {
					t.Errorf("New panicked with %q, which does not say %q", said, test.says)
				}
			}()
			protobuf.New(test.events)
		})
	}
}

// TestUnknownFieldsAreKept reads an event of a later release and writes it again.
func TestUnknownFieldsAreKept(t *testing.T) {
	later, err := wallet.Codec.Encode(samples()[3])
	if err != nil {
		t.Fatal(err)
	}
	earlier := protobuf.New(map[string]proto.Message{"spent": (*wrapperspb.Int64Value)(nil)}) // it has field 1 only
	event, err := earlier.Decode(later)
	if err != nil || event.(*wrapperspb.Int64Value).GetValue() != 1 {
		t.Fatalf("%v, %v", event, err)
	}
	again, err := earlier.Encode(event)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := wallet.Codec.Decode(again); err != nil || !proto.Equal(samples()[3], back) {
		t.Errorf("%v, %v; want %v", back, err, samples()[3])
	}
}

func TestOldMessagesAreUpcast(t *testing.T) {
	codec := protobuf.New(map[string]proto.Message{"spent.v2": (*walletpb.Spent)(nil)}).
		Upcast("spent", es.From(func(old *wrapperspb.Int64Value) proto.Message { return &walletpb.Spent{Cents: 100 * old.GetValue()} })).
		Upcast("paid", es.From(func(old wrongValue) proto.Message { return &walletpb.Spent{Cents: int64(old)} })).
		Rename("used", "spent.v2").
		Retire("printed")
	data, err := proto.Marshal(wrapperspb.Int64(7))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"spent": 700, "used": 7} {
		if event, err := codec.Decode(es.Record{Type: name, Data: data}); err != nil || event.(*walletpb.Spent).GetCents() != want {
			t.Errorf("%s is decoded to %v, %v", name, event, err)
		}
	}
	if _, err := codec.Decode(es.Record{Type: "paid", Data: data}); err == nil || !strings.Contains(err.Error(), "upcast from a pointer") {
		t.Errorf("an upcast from a value returned %v", err)
	}
	if _, err := codec.Decode(es.Record{Type: "spent", Data: []byte{0xff}}); err == nil || !strings.Contains(err.Error(), `"spent"`) {
		t.Errorf("damaged data returned %v", err)
	}
	if _, err := codec.Decode(es.Record{Type: "printed"}); !errors.Is(err, es.ErrRetired) {
		t.Errorf("%v, want ErrRetired", err)
	}
}

type wrongValue int64

// TestALogMovesFromJSON has a wallet with events of both formats.
func TestALogMovesFromJSON(t *testing.T) {
	older := es.JSON(map[string]proto.Message{}).
		Upcast("opened", es.From(func(old struct{ Owner string }) proto.Message { return &walletpb.Opened{Owner: old.Owner} })).
		Upcast("received", es.From(func(old struct{ Cents int64 }) proto.Message { return &walletpb.Received{Cents: old.Cents} }))
	codec := protobuf.New(map[string]proto.Message{"received.pb": (*walletpb.Received)(nil), "spent": (*walletpb.Spent)(nil)}).Fallback(older)
	log := new(es.Mem)
	if _, err := log.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "wallet", ID: "1"}, Events: []es.Record{
		{Type: "opened", Data: []byte(`{"Owner":"Ada"}`)}, {Type: "received", Data: []byte(`{"Cents":70}`)},
	}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		repo := es.NewRepo(log, "wallet", wallet.Rules{}, codec)
		repo.Snapshots, repo.SnapshotEvery = log, 2
		if _, err := repo.Execute(t.Context(), "1", wallet.Receive{Cents: 5}); err != nil {
			t.Fatal(err)
		}
		if err := repo.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	at, err := es.NewRepo(log, "wallet", wallet.Rules{}, codec).Load(t.Context(), "1")
	if want := (wallet.Wallet{Owner: "Ada", Cents: 80}); err != nil || at.State != want || at.Version != 4 {
		t.Errorf("%+v at version %d, %v; want %+v", at.State, at.Version, err, want)
	}
}

// kept is a state that holds the messages themselves.
type kept struct{ events []proto.Message }

type keeps struct{}

func (keeps) Decide(_ kept, c proto.Message) ([]proto.Message, error) { return []proto.Message{c}, nil }
func (keeps) Evolve(k kept, e proto.Message) kept {
	return kept{append(slices.Clip(k.events), e)}
}

// TestStatesDoNotShareMessagesWithCommands changes a message after it has been written.
func TestStatesDoNotShareMessagesWithCommands(t *testing.T) {
	repo := es.NewRepo(new(es.Mem), "wallet", keeps{}, wallet.Codec)
	event := &walletpb.Spent{Cents: 1, Items: []string{"tea"}}
	if _, err := repo.Execute(t.Context(), "1", event); err != nil {
		t.Fatal(err)
	}
	event.Cents, event.Items[0] = 2, "coffee"
	at, err := repo.Load(t.Context(), "1")
	if err != nil || len(at.State.events) != 1 || !proto.Equal(at.State.events[0], &walletpb.Spent{Cents: 1, Items: []string{"tea"}}) {
		t.Errorf("the state has %v, %v", at.State.events, err)
	}
}

// TestPureRulesOnMessages checks that the parts of a message that change when it is encoded do not count as changes.
func TestPureRulesOnMessages(t *testing.T) {
	given := &walletpb.Opened{Owner: "Ada"}
	if _, err := wallet.Codec.Encode(given); err != nil {
		t.Fatal(err)
	}
	estest.For(t, keeps{}).Given(given).When(samples()[1]).Then(samples()[1]).ThenState(kept{[]proto.Message{&walletpb.Opened{Owner: "Ada"}, samples()[1]}})
	recorder.Fails(t, func(t testing.TB) {
		estest.For(t, keeps{}).Given(given).When(samples()[1]).Then(samples()[2])
	}, "1234")
	recorder.Fails(t, func(t testing.TB) {
		estest.For(t, changes{}).Given(&walletpb.Spent{Cents: 1}).When(samples()[1]).ThenNothing()
	}, "modifies the event")
}

// changes has rules that are not pure.
type changes struct{}

func (changes) Decide(kept, proto.Message) ([]proto.Message, error) { return nil, nil }
func (changes) Evolve(k kept, e proto.Message) kept {
	e.(*walletpb.Spent).Cents++
	return k
}

func TestOneTypeOfMessages(t *testing.T) {
	codec := protobuf.New(map[string]*structpb.Struct{"noted": nil})
	note, err := structpb.NewStruct(map[string]any{"a": 1, "b": []any{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	estest.TestCodec(t, codec, []*structpb.Struct{note})
}
