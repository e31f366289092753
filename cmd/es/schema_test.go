package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thalo-go/es/examples/bank/account"
	events "github.com/thalo-go/es/schema"
)

const (
	goldenAccounts = "../../examples/bank/account/testdata/events.json"
	goldenWallets  = "../../examples/wallet/testdata/events.json"
)

// TestSchemasFromGoldenFiles compares with the schemas of the codec.
func TestSchemasFromGoldenFiles(t *testing.T) {
	t.Setenv("ES_STORE", "")
	want, err := events.JSON(account.Codec)
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := program(t, "schema", goldenAccounts)
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || stderr != "" || len(got) != len(want) {
		t.Fatalf("exit code %d, %v, and on standard error:\n%s", code, err, stderr)
	}
	for name, data := range want {
		if strings.Join(strings.Fields(string(got[name])), "") != strings.Join(strings.Fields(string(data)), "") {
			t.Errorf("%s is %s, want %s", name, got[name], data)
		}
	}
	document, err := events.AsyncAPI("Bank", "2.0.0", map[string]map[string][]byte{"bank.account": want})
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = program(t, "schema", "--title", "Bank", "--api-version", "2.0.0", "--topic", "bank.account="+goldenAccounts)
	if strings.TrimSpace(stdout) != string(document) || code != exitOK || stderr != "" {
		t.Errorf("exit code %d, and on standard error:\n%s\non standard output:\n%s", code, stderr, stdout)
	}
	if _, stdout, _ := program(t, "schema", "--title", "Wallet", "--topic", "wallet="+goldenWallets); !strings.Contains(stdout, `"contentType": "application/protobuf"`) {
		t.Errorf("the content type of protocol buffers is not in %s", stdout)
	}
}

func TestSchemaRefuses(t *testing.T) {
	t.Setenv("ES_STORE", "")
	data, err := os.ReadFile(goldenAccounts)
	if err != nil {
		t.Fatal(err)
	}
	edited := filepath.Join(t.TempDir(), "edited.json")
	if err := os.WriteFile(edited, []byte(strings.Replace(string(data), `"type": "integer"`, `"type": "number"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no file":                 {nil, "give golden files"},
		"a title without a topic": {[]string{"--title", "Bank"}, "--topic"},
		"a topic without a title": {[]string{"--topic", "bank=" + goldenAccounts}, "--title"},
		"both forms":              {[]string{"--title", "Bank", "--topic", "bank=" + goldenAccounts, goldenAccounts}, "give golden files"},
		"a file that is missing":  {[]string{"absent.json"}, "absent.json has no events"},
		"an edited file":          {[]string{edited}, "edited by hand at"},
		"a name in two files":     {[]string{goldenAccounts, goldenWallets}, "opened is in two files"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := program(t, append([]string{"schema"}, test.args...)...)
			if code != exitFailed || stdout != "" || !strings.Contains(stderr, test.says) {
				t.Errorf("exit code %d, output %q, and on standard error:\n%s", code, stdout, stderr)
			}
		})
	}
}
