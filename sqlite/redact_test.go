package sqlite_test

import (
	"bytes"
	"database/sql"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/thalo-go/es"
)

func TestRedactSaysThatAReaderKeepsTheLog(t *testing.T) {
	t.Parallel()
	path := file(t)
	s := open(t, path)
	stream := es.Stream{Kind: "person", ID: "ann"}
	if _, err := s.Append(t.Context(), es.Append{Stream: stream, Events: []es.Record{{Type: "named", Data: []byte("Ann Smith")}}}); err != nil {
		t.Fatal(err)
	}
	tx, err := connect(t, path).BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRowContext(t.Context(), "select count(*) from es_events").Scan(&n); err != nil { // the transaction sees what is there now
		t.Fatal(err)
	}
	names := func(done es.Redaction) bool {
		return slices.ContainsFunc(done.Unreached, func(s string) bool { return strings.HasPrefix(s, "the write-ahead log") })
	}
	if done, err := s.Redact(t.Context(), stream, 1, "request 17"); err != nil || done.Repeated || !names(done) {
		t.Errorf("beside a reader: got %+v, %v", done, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Redact(t.Context(), stream, 1, "request 17"); err != nil || !done.Repeated || names(done) {
		t.Errorf("after the reader has ended: got %+v, %v", done, err)
	}
	for _, name := range []string{path, path + "-wal"} {
		if data, err := os.ReadFile(name); err != nil || bytes.Contains(data, []byte("Ann Smith")) {
			t.Errorf("%s has the content, or cannot be read: %v", name, err)
		}
	}
}
