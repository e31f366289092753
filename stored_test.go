package es_test

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thalo-go/es"
)

// The events of a basket, most of which JSON does not bring back as they were.
type (
	basketEvent any
	picked      struct {
		Items []string `json:",omitempty"`
	}
	counted struct {
		N     int
		Price [2]float64
		Name  string
	}
	noted struct {
		Text  string
		Cache int `json:"-"`
	}
	dated struct{ At time.Time }
	odd   struct{ N int } // stored by a codec of functions
)

// basket keeps all events, so that any difference between them shows.
type basket struct{ Events []basketEvent }

type baskets struct{}

func (baskets) Decide(_ basket, c []basketEvent) ([]basketEvent, error) { return c, nil }

func (baskets) Evolve(b basket, e basketEvent) basket {
	return basket{append(slices.Clip(b.Events), e)}
}

var basketCodec = es.JSON(map[string]basketEvent{"picked": picked{}, "counted": counted{}, "noted": noted{}, "dated": dated{}})

func TestStatesAndResultsAreOfEventsAsStored(t *testing.T) {
	halves := es.CodecFunc( // keeps half of the precision, and retires odd numbers above 10
		func(e basketEvent) (es.Record, error) {
			return es.Record{Type: "odd", Data: []byte{byte(e.(odd).N / 2)}}, nil
		},
		func(r es.Record) (basketEvent, error) {
			if r.Data[0] > 5 {
				return nil, es.ErrRetired
			}
			return odd{2 * int(r.Data[0])}, nil
		})
	for name, test := range map[string]struct {
		codec  *es.Codec[basketEvent]
		events []basketEvent
	}{
		"an empty slice that is omitted": {basketCodec, []basketEvent{picked{Items: []string{}}, picked{Items: []string{"a"}}}},
		"a field that is not stored":     {basketCodec, []basketEvent{noted{"a", 7}}},
		"a time with a monotonic clock":  {basketCodec, []basketEvent{dated{time.Now()}}},
		"scalars":                        {basketCodec, []basketEvent{counted{1, [2]float64{0.1, 1e300}, "\u2028"}, counted{}}},
		"a codec that rounds":            {halves, []basketEvent{odd{3}, odd{4}, odd{20}, odd{5}}},
	} {
		t.Run(name, func(t *testing.T) {
			log := new(es.Mem)
			repo := es.NewRepo(log, "basket", baskets{}, test.codec)
			fresh := es.NewRepo(log, "basket", baskets{}, test.codec)
			var first es.Result[basket, basketEvent]
			for i := range 2 {
				result, err := repo.Execute(t.Context(), "1", test.events, es.CommandID(string(rune('a'+i))))
				if err != nil {
					t.Fatal(err)
				}
				loaded, err := fresh.Load(t.Context(), "1")
				if diff := cmp.Diff(loaded.State, result.State, cmp.Comparer(sameTime)); err != nil || diff != "" {
					t.Errorf("command %d: the state differs from a loaded one (-loaded +result): %v\n%s", i, err, diff)
				}
				if i == 0 {
					first = result
				}
			}
			again, err := repo.Execute(t.Context(), "1", test.events, es.CommandID("a"))
			if diff := cmp.Diff(repeated(first), again, cmp.Comparer(sameTime)); err != nil || diff != "" {
				t.Errorf("a repetition has another result (-first +again): %v\n%s", err, diff)
			}
		})
	}
}

// sameTime compares times with all that is in them.
func sameTime(a, b time.Time) bool { return reflect.DeepEqual(a, b) } // Equal ignores the zone and the monotonic clock

func TestStatesDoNotShareMemoryWithCommands(t *testing.T) {
	repo := es.NewRepo(new(es.Mem), "basket", baskets{}, basketCodec)
	items := []string{"a"}
	if _, err := repo.Execute(t.Context(), "1", []basketEvent{picked{items}}); err != nil {
		t.Fatal(err)
	}
	items[0] = "changed by the caller"
	loaded, err := repo.Load(t.Context(), "1")
	if diff := cmp.Diff(basket{[]basketEvent{picked{[]string{"a"}}}}, loaded.State); err != nil || diff != "" {
		t.Errorf("the cached state changed with the caller's slice: %v\n%s", err, diff)
	}
}

func TestEventThatCannotBeDecodedIsNotWritten(t *testing.T) {
	log := new(es.Mem)
	codec := es.CodecFunc(func(added) (es.Record, error) { return es.Record{Type: "added"}, nil },
		func(r es.Record) (added, error) { return added{}, errTilt })
	_, err := es.NewRepo(log, "tally", tally{}, codec).Execute(context.Background(), "1", add(1))
	if head, _ := es.Head(t.Context(), log); err == nil || head != 0 {
		t.Errorf("%v, with %d events written; want the error of Decode and none", err, head)
	}
}
