package es_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/bank/account"
)

// FuzzNames looks for a name that does not parse to its stream, and for two streams with one name.
func FuzzNames(f *testing.F) {
	f.Add("account/ann", "account", "ann", int64(7))
	f.Add("account/branch/9/ann", "account/branch", "9/ann", int64(1))
	f.Add("account", "", "account", int64(0))
	f.Add("/ann", "account\x00", "ann", int64(-1))
	f.Fuzz(func(t *testing.T, name, kind, id string, version int64) {
		parsed, err := es.ParseStream(name)
		switch {
		case err != nil && !errors.Is(err, es.ErrInvalid):
			t.Errorf("ParseStream(%q): %v; want an ErrInvalid", name, err)
		case err == nil && parsed.String() != name:
			t.Errorf("ParseStream(%q) prints as %q", name, parsed)
		case err == nil && parsed.Check() != nil:
			t.Errorf("ParseStream(%q) takes what Check does not: %v", name, parsed.Check())
		}

		stream := es.Stream{Kind: kind, ID: id}
		if err := stream.Check(); err != nil {
			if !errors.Is(err, es.ErrInvalid) {
				t.Errorf("Check of %q: %v; want an ErrInvalid", stream, err)
			}
			return
		}
		if back, err := es.ParseStream(stream.String()); err != nil || back != stream {
			t.Errorf("ParseStream(%q) = %#v, %v; want %#v", stream.String(), back, err, stream)
		}
		if err == nil && stream != parsed && stream.String() == parsed.String() {
			t.Errorf("%#v and %#v both print as %q", stream, parsed, name)
		}
		recordID := es.Record{Stream: stream, Version: es.Version(version)}.ID()
		last := strings.LastIndexByte(recordID, '/')
		if back, err := es.ParseStream(recordID[:last]); err != nil || back != stream {
			t.Errorf("the stream in record id %q is %#v, %v; want %#v", recordID, back, err, stream)
		}
	})
}

// shape is an event with a field of each type that JSON round-trips.
type shape struct {
	Text   string
	Whole  int64
	Small  uint8
	Ratio  float64
	Yes    bool
	List   []string
	Bytes  []byte
	Lookup map[string]int
	Inner  *shape
}

type fuzzed any

var shapes = es.JSON(map[string]fuzzed{
	"shape":     shape{},
	"opened":    account.Opened{},
	"deposited": account.Deposited{},
}).
	Rename("form", "shape").
	Upcast("paid", es.From(func(old struct{ Euros int32 }) fuzzed { return account.Deposited{Amount: 100 * int64(old.Euros)} })).
	Retire("printed")

// FuzzCodec looks for data that makes a codec panic, and for decoded events that do not survive a round trip.
func FuzzCodec(f *testing.F) {
	f.Add("shape", []byte(`{"Text": "ä", "Whole": -1, "Small": 255, "Ratio": 1e300, "List": ["", "a"], "Bytes": "AAE=", "Lookup": {"": 1}, "Inner": {"Yes": true}}`))
	f.Add("form", []byte(`{"List": [], "Bytes": null, "unknown": {}}`))
	f.Add("paid", []byte(`{"Euros": 7}`))
	f.Add("deposited", []byte(`{"Amount": 1.5}`))
	f.Add("opened", []byte("{\"Owner\": \"\xff\"}"))
	f.Add("printed", []byte(nil))
	f.Add("unknown", []byte(`null`))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r := es.Record{Stream: es.Stream{Kind: "thing", ID: "42"}, Version: 7, Type: name, Data: data}
		event, err := shapes.Decode(r)
		if err == es.ErrRetired && name == "printed" {
			return
		}
		if err != nil {
			var unknown *es.UnknownEventError
			if errors.As(err, &unknown) && unknown.Type != name {
				t.Errorf("decode of %q: %v; want an error that has the type", name, err)
			}
			if !strings.Contains(err.Error(), "thing/42/7") || !strings.Contains(err.Error(), strconv.Quote(name)) {
				t.Errorf("decode of %q: %v; want an error with the stream, the version and the type", name, err)
			}
			return
		}
		written, err := shapes.Encode(event)
		if err != nil {
			t.Fatalf("decode of %q %q gave %#v, which cannot be written: %v", name, data, event, err)
		}
		back, err := shapes.Decode(written)
		if diff := cmp.Diff(event, back); err != nil || diff != "" {
			t.Errorf("%s, read back: %v %s", written.Data, err, diff)
		}
	})
}

// FuzzAppend looks for a record that CheckAppends accepts but Mem rejects or returns changed.
func FuzzAppend(f *testing.F) {
	f.Add("account", "ann", int64(0), "opened", []byte(`{"Owner": "Ann"}`), "user", "clerk-7", "salary-2026-11")
	f.Add("account", "bob", int64(-1), "opened", []byte{0, 0xff}, "", "", "")
	f.Add("account", "a/b", int64(1), "opened", []byte(nil), "key", "", "twice")
	f.Add("a/b", "", int64(-2), "", []byte(nil), "\x00", "\xff", "\x00")
	f.Fuzz(func(t *testing.T, kind, id string, expected int64, name string, data []byte, key, value, command string) {
		a := es.Append{
			Stream:   es.Stream{Kind: kind, ID: id},
			Expected: es.Version(expected),
			Command:  command,
			Events:   []es.Record{{Type: name, Data: data, Meta: map[string]string{key: value}}, {Type: name}},
		}
		want := []es.Record{
			{Stream: a.Stream, Version: 1, Position: 1, Type: name, Data: data, Meta: map[string]string{key: value}},
			{Stream: a.Stream, Version: 2, Position: 2, Type: name},
		}
		log := new(es.Mem)
		bad := es.CheckAppends(a)
		_, err := log.Append(t.Context(), a)
		var conflict *es.ConflictError
		switch {
		case bad != nil:
			if !errors.Is(bad, es.ErrInvalid) || err == nil || err.Error() != bad.Error() {
				t.Errorf("CheckAppends: %v; Append: %v; want one ErrInvalid", bad, err)
			}
			want = nil
		case expected > 0:
			if !errors.As(err, &conflict) {
				t.Errorf("Append at version %d: %v; want a ConflictError", expected, err)
			}
			want = nil
		case err != nil:
			t.Fatalf("CheckAppends lets %+v through, Append says %v", a, err)
		}
		var got []es.Record
		for r, err := range log.All(t.Context(), 0, es.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(es.Record{}, "Time")); diff != "" {
			t.Error(diff)
		}
		if len(want) > 0 {
			if diff := cmp.Diff(got, stored(t, log, a.Stream)); diff != "" {
				t.Errorf("Read and All differ: %s", diff)
			}
		}
	})
}

// FuzzSnapshot looks for snapshot data that prevents a load or leads to a wrong state.
func FuzzSnapshot(f *testing.F) {
	log := new(es.Mem)
	repo := newBank(log)
	repo.Snapshots, repo.SnapshotEvery = log, 2
	for _, c := range []account.Command{account.Open{Owner: "Ann"}, account.Deposit{Amount: 5}, account.Deposit{Amount: 7}} {
		if _, err := repo.Execute(f.Context(), "ann", c); err != nil {
			f.Fatal(err)
		}
	}
	if err := repo.Close(context.Background()); err != nil {
		f.Fatal(err)
	}
	stream := es.Stream{Kind: "account", ID: "ann"}
	good, err := log.LoadSnapshot(f.Context(), stream)
	if err != nil || good.Version == 0 {
		f.Fatalf("there is no snapshot: %v", err)
	}
	at, err := newBank(log).Load(f.Context(), "ann")
	want := at.State
	if err != nil {
		f.Fatal(err)
	}
	f.Add(int64(good.Version), int64(good.Position), good.Data, false)
	f.Add(int64(1), int64(1), good.Data, false)
	f.Add(int64(2), int64(2), []byte(`{"Digest":1,"State":{}}`), false)
	f.Add(int64(9), int64(9), []byte(`null`), true)
	f.Add(int64(-1), int64(0), []byte(`{"State":[`), true)
	f.Fuzz(func(t *testing.T, version, position int64, data []byte, other bool) {
		shelf := new(es.Mem)
		snapshot := es.Snapshot{Stream: stream, Version: es.Version(version), Position: es.Position(position), Data: data}
		if other {
			snapshot.Schema = 1
		}
		if err := shelf.SaveSnapshot(t.Context(), snapshot); err != nil {
			t.Fatal(err)
		}
		repo := newBank(log)
		repo.Snapshots = shelf
		at, err := repo.Load(t.Context(), "ann")
		got, v := at.State, at.Version
		if err != nil || v != 3 {
			t.Fatalf("version %d, %v; want 3", v, err)
		}
		// Who writes the right digest beside another state is believed; a digest is no signature.
		if got != want && !bytes.Contains(data, digestOf(good.Data)) {
			t.Errorf("the state is %+v, want %+v", got, want)
		}
	})
}

// digestOf returns the digits of the digest in a snapshot.
func digestOf(data []byte) []byte {
	return regexp.MustCompile(`[0-9]{5,}`).Find(data)
}
