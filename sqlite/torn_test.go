//go:build unix

package sqlite_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/sqlite"
)

// The test tears what need not have been synced at a power failure: the write-ahead log after the last acknowledged commit, and pages of the
// database that a checkpoint was writing. The former may be incomplete or garbage. The latter are still in the log.
func TestTornWrites(t *testing.T) {
	stops := 10
	if testing.Short() {
		stops = 4
	}
	path := file(t)
	c := child.Start(t, "write", path, 3)
	c.Await(1)
	var tears int
	for range stops {
		time.Sleep(rand.N(25 * time.Millisecond)) // not synchronization: a random moment for the stop
		database, log, said, resume := stopped(t, c, path)
		wal := readWAL(log)
		intact := wal.covering(t, database, said)
		for range 5 {
			torn, pages := bytes.Clone(log), bytes.Clone(database)
			switch end := intact + rand.N(len(log)-intact+1); rand.N(4) {
			case 0: // truncated
				torn = torn[:end]
			case 1: // extended but not filled
				clear(torn[end:])
			case 2: // sectors of garbage
				garble(torn[end:])
			case 3: // single bytes
				for range rand.N(20) {
					if at := intact + rand.N(len(log)-intact+1); at < len(torn) {
						torn[at] ^= byte(1 + rand.N(255))
					}
				}
			}
			for _, page := range wal.pages(intact) { // a checkpoint in flight
				if at := int(page-1) * wal.pageSize; page > 1 && at+wal.pageSize <= len(pages) && rand.N(3) == 0 {
					garble(pages[at : at+wal.pageSize])
				}
			}
			survived(t, copied(t, pages, torn), said)
			tears++
		}
		resume()
	}
	t.Logf("torn %d times, at the last with %d acknowledged appends", tears, len(c.Lines()))
}

func garble(data []byte) {
	for i := range data {
		data[i] = byte(rand.N(256))
	}
}

// copied returns the path of a database that consists of these two files.
func copied(t *testing.T, database, log []byte) string {
	t.Helper()
	path := file(t)
	for name, data := range map[string][]byte{path: database, path + "-wal": log} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// wal is the frames of a write-ahead log in SQLite's file format.
type wal struct {
	log      []byte
	pageSize int
	frames   []frame
}

type frame struct {
	page   uint32
	commit bool
	end    int // offset of the next
}

func readWAL(log []byte) *wal {
	const header, frameHeader = 32, 24
	w := &wal{log: log}
	if len(log) < header {
		return w
	}
	w.pageSize = int(binary.BigEndian.Uint32(log[8:]))
	salts := log[16:24]
	for at := header; at+frameHeader+w.pageSize <= len(log) && bytes.Equal(log[at+8:at+16], salts); {
		f := frame{page: binary.BigEndian.Uint32(log[at:]), commit: binary.BigEndian.Uint32(log[at+4:]) > 0, end: at + frameHeader + w.pageSize}
		w.frames = append(w.frames, f)
		at = f.end
	}
	return w
}

// covering returns the length of the log that covers everything acknowledged. The rest need not have been synced.
func (w *wal) covering(t *testing.T, database []byte, said map[es.Position]string) int {
	t.Helper()
	needed := len(w.log)
	for _, f := range slices.Backward(w.frames) {
		if !f.commit {
			continue
		}
		if !holds(t, copied(t, database, w.log[:f.end]), said) {
			return needed
		}
		needed = f.end
	}
	return needed
}

// pages returns the pages in the log up to the last commit before an offset.
func (w *wal) pages(end int) []uint32 {
	var pages []uint32
	committed := 0
	for _, f := range w.frames {
		if f.end > end {
			break
		}
		if pages = append(pages, f.page); f.commit {
			committed = len(pages)
		}
	}
	return pages[:committed]
}

// holds reports whether a database contains everything acknowledged.
func holds(t *testing.T, path string, said map[es.Position]string) bool {
	t.Helper()
	s, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	records := all(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for position := range said {
		if int(position) > len(records) {
			return false
		}
	}
	return true
}
