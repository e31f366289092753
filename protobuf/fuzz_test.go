package protobuf_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/wallet"
)

// FuzzMessages decodes any data. What can be decoded is equal once it has been encoded and decoded again, with its unknown fields.
func FuzzMessages(f *testing.F) {
	for _, event := range samples() {
		r, err := wallet.Codec.Encode(event)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Type, r.Data)
	}
	f.Add("spent", []byte{})
	f.Add("spent", []byte{0xff})
	f.Add("opened", []byte(`{"Owner":"Ada"}`))
	f.Add("received", []byte{0x1a, 0x02, 0x78, 0x01, 0x7a, 0x00})
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		event, err := wallet.Codec.Decode(es.Record{Type: name, Data: data})
		if err != nil {
			return
		}
		r, err := wallet.Codec.Encode(event)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := wallet.Codec.Decode(r); err != nil || !proto.Equal(event, again) || r.Type != name {
			t.Errorf("%v becomes %v, %v", event, again, err)
		}
	})
}
