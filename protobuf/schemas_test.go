package protobuf_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/estest"
	"github.com/thalo-go/es/examples/wallet"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/internal/test/recorder"
	"github.com/thalo-go/es/protobuf"
)

func update(t *testing.T, is string) {
	t.Helper()
	if err := flag.Set("update-schemas", is); err != nil {
		t.Fatal(err)
	}
}

// TestSchemasOfMessages has two releases of a program. The messages of the second have other numbers or kinds.
func TestSchemasOfMessages(t *testing.T) {
	for name, test := range map[string]struct {
		first, second proto.Message
		says          []string // nothing: it is as it was
		safe          bool
	}{
		"nothing changes":                     {&walletpb.Received{}, &walletpb.Received{}, nil, false},
		"a field becomes wider":               {&wrapperspb.Int32Value{}, &wrapperspb.Int64Value{}, []string{`"a" has changed`}, true},
		"a field becomes narrower":            {&wrapperspb.Int64Value{}, &wrapperspb.Int32Value{}, []string{"value with number 1 was int64, is int32"}, false},
		"a field is text":                     {&wrapperspb.Int64Value{}, &wrapperspb.StringValue{}, []string{"value with number 1 was int64, is string"}, false},
		"text becomes bytes":                  {&wrapperspb.StringValue{}, &wrapperspb.BytesValue{}, []string{`"a" has changed`}, true},
		"fields are added and a name changes": {&wrapperspb.Int64Value{}, &durationpb.Duration{}, []string{`"a" has changed`}, true}, // value = 1 becomes seconds = 1
		"a field is removed":                  {&durationpb.Duration{}, &wrapperspb.Int64Value{}, []string{"nanos with number 2 is gone"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			defer update(t, "false")
			file := filepath.Join(t.TempDir(), "events.json")
			update(t, "true")
			recorder.Fails(t, func(t testing.TB) {
				estest.TestSchemas(t, protobuf.New(map[string]proto.Message{"a": test.first}), file)
			})
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			update(t, "false")
			now := protobuf.New(map[string]proto.Message{"a": test.second})
			recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, now, file) }, test.says...)
			update(t, "true")
			says := test.says
			if test.safe {
				says = nil
			}
			recorder.Fails(t, func(t testing.TB) { estest.TestSchemas(t, now, file) }, says...)
			after, err := os.ReadFile(file)
			if err != nil || (string(after) != string(before)) != test.safe {
				t.Errorf("the file was written: %v, %v; it is safe: %v", string(after) != string(before), err, test.safe)
			}
		})
	}
}

// TestTheSampleOfAMessageHasEveryField looks at the golden file of the wallet.
func TestTheSampleOfAMessageHasEveryField(t *testing.T) {
	data, err := os.ReadFile("../examples/wallet/testdata/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Events map[string]struct {
			Shapes []struct {
				ContentType string
				Sample      json.RawMessage
				Data        []byte
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]proto.Message{
		"opened": &walletpb.Opened{Owner: "text"},
		"spent":  &walletpb.Spent{Cents: 7, Items: []string{"text"}, Reason: walletpb.Reason_REASON_FEE, Card: "text"},
	} {
		shapes := file.Events[name].Shapes
		if len(shapes) == 0 {
			t.Fatalf("%s has no shapes", name)
		}
		event, err := wallet.Codec.Decode(es.Record{Type: name, Data: shapes[0].Data})
		if err != nil || !proto.Equal(event, want) || shapes[0].ContentType != protobuf.ContentType {
			t.Errorf("%s is %v, %v, of %s; want %v", name, event, err, shapes[0].ContentType, want)
		}
	}
	if sample := string(file.Events["spent"].Shapes[0].Sample); !strings.Contains(sample, `"REASON_FEE"`) {
		t.Errorf("the sample for people is %s", sample)
	}
}
