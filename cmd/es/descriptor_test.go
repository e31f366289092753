package main

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/wallet/walletpb"
	"github.com/thalo-go/es/sqlite"
)

// descriptors writes the descriptors of the wallet to a file, without those that they import if alone.
func descriptors(t *testing.T, alone bool) string {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(timestamppb.File_google_protobuf_timestamp_proto), protodesc.ToFileDescriptorProto(walletpb.File_wallet_proto),
	}}
	if alone {
		set.File = set.File[1:]
	}
	data, err := proto.Marshal(set)
	path := filepath.Join(t.TempDir(), "set.pb")
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	received = &walletpb.Received{Cents: 500, Source: &walletpb.Received_Card{Card: "1234"}, At: &timestamppb.Timestamp{Seconds: 1}}
	spent    = &walletpb.Spent{Cents: 1, Items: []string{"tea"}, Reason: walletpb.Reason_REASON_FEE}
)

func binary(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// wallet makes a store with binary events, beside older ones in JSON.
func wallet(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wallet.db")
	store, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Append(t.Context(), es.Append{Stream: es.Stream{Kind: "wallet", ID: "1"}, Events: []es.Record{
		{Type: "opened", Data: []byte(`{"Owner":"Ada"}`)},
		{Type: "received", Data: binary(t, received)},
		{Type: "spent.v2", Data: binary(t, spent)},
		{Type: "spent", Data: []byte{0xff}},
		{Type: "opened", Data: binary(t, &walletpb.Opened{})},
		{Type: "spent", Data: []byte{0xfe}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBinaryDataIsShownAsJSON(t *testing.T) {
	store, set := wallet(t), descriptors(t, false)
	receivedAs, spentAs := base64.StdEncoding.EncodeToString(binary(t, received)), base64.StdEncoding.EncodeToString(binary(t, spent))
	for name, test := range map[string]struct {
		args []string
		want [][2]string // data and dataBase64
		says string
	}{
		"without descriptors": {[]string{"read", "wallet/1"}, [][2]string{
			{`{"Owner":"Ada"}`, ""}, {"", receivedAs}, {"", spentAs}, {"", "/w=="}, {"", ""}, {"", "/g=="},
		}, ""},
		"with descriptors, by names": {[]string{"read", "-descriptor", set, "wallet/1"}, [][2]string{
			{`{"Owner":"Ada"}`, ""}, {`{"cents":"500","card":"1234","at":"1970-01-01T00:00:01Z"}`, ""}, {"", spentAs}, {"", "/w=="}, {`{"owner":""}`, ""}, {"", "/g=="},
		}, "es: wallet/1/4, type spent: the data is not a wallet.v1.Spent"},
		"with a message of another name": {[]string{"tail", "-descriptor=" + set, "--message", "spent.v2=wallet.v1.Spent"}, [][2]string{
			{`{"Owner":"Ada"}`, ""}, {`{"cents":"500","card":"1234","at":"1970-01-01T00:00:01Z"}`, ""},
			{`{"cents":"1","items":["tea"],"reason":"REASON_FEE","card":""}`, ""}, {"", "/w=="}, {`{"owner":""}`, ""}, {"", "/g=="},
		}, "type spent: the data is not"},
		"with the wrong message": {[]string{"read", "--descriptor", set, "--message", "received=wallet.v1.Opened", "--message", "spent=wallet.v1.Opened", "wallet/1"}, [][2]string{
			{`{"Owner":"Ada"}`, ""}, {"", receivedAs}, {"", spentAs}, {"", "/w=="}, {`{"owner":""}`, ""}, {"", "/g=="},
		}, "type received: the data is not a wallet.v1.Opened"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := program(t, append([]string{"-s", store, "-json"}, test.args...)...)
			if code != exitOK || !strings.Contains(stderr, test.says) || (stderr == "") != (test.says == "") || strings.Count(stderr, "type spent:") > 1 {
				t.Errorf("exit code %d, and on standard error:\n%s", code, stderr)
			}
			lines := strings.Split(strings.TrimSpace(stdout), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("got %d lines:\n%s", len(lines), stdout)
			}
			for i, line := range lines {
				var o struct {
					Data       json.RawMessage
					DataBase64 string
				}
				if err := json.Unmarshal([]byte(line), &o); err != nil {
					t.Fatal(err)
				}
				if got := [2]string{string(o.Data), o.DataBase64}; got != test.want[i] {
					t.Errorf("event %d is shown as %q, want %q", i+1, got, test.want[i])
				}
			}
		})
	}
	t.Run("for people", func(t *testing.T) {
		if _, stdout, _ := program(t, "-s", store, "read", "-descriptor", set, "wallet/1"); !strings.Contains(stdout, `{"cents":"500","card":"1234"`) {
			t.Errorf("got:\n%s", stdout)
		}
	})
}

func TestDescriptorsThatAreRefused(t *testing.T) {
	store := wallet(t)
	damaged := filepath.Join(t.TempDir(), "damaged.pb")
	if err := os.WriteFile(damaged, []byte("not a set"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		flags []string
		says  string
	}{
		"a file that does not exist":       {[]string{"-descriptor", "absent.pb"}, "absent.pb"},
		"a file that is no set":            {[]string{"-descriptor", damaged}, "is not a set of descriptors: make it by protoc"},
		"a set without its imports":        {[]string{"-descriptor", descriptors(t, true)}, "--include_imports"},
		"a message that is not there":      {[]string{"-descriptor", descriptors(t, false), "-message", "spent=Spent"}, "has no message Spent for spent: give its full name"},
		"a message that is another thing":  {[]string{"-descriptor", descriptors(t, false), "-message", "spent=wallet.v1.Reason"}, "has no message wallet.v1.Reason"},
		"a message without its descriptor": {[]string{"-message", "spent=wallet.v1.Spent"}, "--message needs --descriptor"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := program(t, append([]string{"-s", store, "read", "wallet/1"}, test.flags...)...)
			if code != exitFailed || stdout != "" || !strings.Contains(stderr, test.says) {
				t.Errorf("exit code %d, output %q, and on standard error:\n%s", code, stdout, stderr)
			}
		})
	}
}
