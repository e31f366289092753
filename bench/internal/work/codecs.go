package work

import (
	"context"
	"iter"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/protobuf"
)

// A purchase is an event with a number, a list and a text.
type purchase struct {
	Cents int64
	Items []string
	Card  string
}

// JSONPurchases returns a caller that buys with a cached wallet, whose events are JSON.
func JSONPurchases() measure.Side {
	return purchases("JSON", es.JSON(map[string]purchase{"spent": {}}), values)
}

// CBORPurchases is [JSONPurchases] with events in CBOR.
func CBORPurchases() measure.Side {
	return purchases("CBOR", es.NewCodec("application/cbor", map[string]purchase{"spent": {}}, cbor.Marshal, cbor.Unmarshal), values)
}

// ProtobufPurchases is [JSONPurchases] with events that are protocol buffers.
func ProtobufPurchases() measure.Side {
	return purchases("protobuf", protobuf.New(map[string]proto.Message{"spent": (*walletpb.Spent)(nil)}), spending[proto.Message]{
		func(cents int64, items []string, card string) proto.Message {
			return &walletpb.Spent{Cents: cents, Items: items, Card: card}
		},
		func(event proto.Message) int64 { return event.(*walletpb.Spent).GetCents() },
	})
}

var values = spending[purchase]{
	func(cents int64, items []string, card string) purchase { return purchase{cents, items, card} },
	func(event purchase) int64 { return event.Cents },
}

// spending are the rules of a wallet whose events are of any type. The state is what was spent.
type spending[E any] struct {
	spent func(cents int64, items []string, card string) E
	cents func(event E) int64
}

func (s spending[E]) Decide(_ int64, items []string) ([]E, error) {
	return []E{s.spent(1250, items, "4000 1234 5678 9010")}, nil
}

func (s spending[E]) Evolve(sum int64, event E) int64 { return sum + s.cents(event) }

func purchases[E any](name string, codec *es.Codec[E], rules spending[E]) measure.Side {
	repo := es.NewRepo(new(nothing), "wallet", rules, codec)
	items := []string{"tea, 250 g", "a cup"}
	return measure.Side{Name: name, Callers: 1, Op: func(ctx context.Context, _ int) error {
		_, err := repo.Execute(ctx, "1", items)
		return err
	}}
}

// nothing is a store that keeps nothing, so that only a Repo and its codec are measured. It is for one caller.
type nothing struct {
	es.Store
	last es.Position
}

func (n *nothing) Append(_ context.Context, appends ...es.Append) (es.Position, error) {
	for _, a := range appends {
		n.last += es.Position(len(a.Events))
	}
	return n.last, nil
}

func (n *nothing) Read(context.Context, es.Stream, es.Version) iter.Seq2[es.Record, error] {
	return func(func(es.Record, error) bool) {}
}
