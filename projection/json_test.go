package projection_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
)

// same reports whether a value has the given JSON, in both directions.
func same[T any](t *testing.T, value T, text string) {
	t.Helper()
	got, err := json.Marshal(value)
	if err != nil || string(got) != text {
		t.Errorf("%+v marshals to %s, %v: want %s", value, got, err, text)
	}
	var back T
	if err := json.Unmarshal([]byte(text), &back); err != nil || !reflect.DeepEqual(back, value) {
		t.Errorf("%s unmarshals to %+v, %v: want %+v", text, back, err, value)
	}
}

func TestStatusAsJSON(t *testing.T) {
	at := time.Date(2026, 11, 30, 3, 57, 0, 0, time.UTC)
	same(t, projection.Status{
		Name: "balances", Version: 1, Shard: "0/4", Source: "5f0c", Cursor: 120, Time: at,
		Lag: &projection.Lag{Head: 123, Positions: 3, Age: 1500 * time.Millisecond}, CaughtUp: true, Worker: "host/812/k3", Parked: 1,
	}, `{"name":"balances","version":1,"shard":"0/4","source":"5f0c","cursor":120,"time":"2026-11-30T03:57:00Z",`+
		`"lag":{"head":123,"positions":3,"ageSeconds":1.5},"caughtUp":true,"worker":"host/812/k3","parked":1}`)
	same(t, projection.Status{Name: "mail", Shard: "orders/0", Source: "topics", Error: "no route", ErrorAt: at},
		`{"name":"mail","version":0,"shard":"orders/0","source":"topics","cursor":0,"caughtUp":false,"parked":0,"error":"no route","errorAt":"2026-11-30T03:57:00Z"}`)
}

func TestParkedAsJSON(t *testing.T) {
	at := time.Date(2026, 11, 30, 3, 57, 0, 0, time.UTC)
	r := es.Record{
		Stream: es.Stream{Kind: "account", ID: "42"}, Version: 7, Position: 120, Time: at,
		Type: "deposited", Data: []byte(`{"Amount":5}`), Meta: map[string]string{"user": "ann"},
	}
	same(t, projection.Parked{Name: "balances", Version: 1, Record: r, Error: "no such table: balances", Attempts: 6, At: at.Add(time.Minute)},
		`{"name":"balances","version":1,"record":{"id":"account/42/7","stream":"account/42","version":7,"position":120,`+
			`"time":"2026-11-30T03:57:00Z","type":"deposited","data":{"Amount":5},"meta":{"user":"ann"}},`+
			`"error":"no such table: balances","attempts":6,"at":"2026-11-30T03:58:00Z"}`)
	r.Data, r.Meta = []byte{1, 2, 255}, nil
	same(t, projection.Parked{Name: "balances", Record: r, At: at},
		`{"name":"balances","version":0,"record":{"id":"account/42/7","stream":"account/42","version":7,"position":120,`+
			`"time":"2026-11-30T03:57:00Z","type":"deposited","dataBase64":"AQL/"},"attempts":0,"at":"2026-11-30T03:57:00Z"}`)
}
