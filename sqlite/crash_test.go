package sqlite_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
)

// These tests simulate crashes in three ways. TestPowerCut simulates power cuts where there is a C compiler.
//
//   - A process is killed. Its writes stay in the system's cache, so this shows that no acknowledgement is early and that no
//     partial write is read.
//   - A process is stopped and its files are copied. This covers many more moments. The process must be stopped because otherwise one of the
//     two files could be newer than the other, which no crash can cause. SQLite rebuilds the -shm file, an index into the write-ahead log.
//   - The write-ahead log is truncated or followed by garbage, anywhere after the acknowledged commits. A power failure leaves such
//     files: everything that was synced, and any part of the rest. TestTornWrites does this to copies taken under load. It also
//     tears pages of the database that a checkpoint may have been writing.

// acknowledged returns what a writing child has printed: the last position of each append, and its text.
func acknowledged(t *testing.T, lines []string) map[es.Position]string {
	t.Helper()
	said := make(map[es.Position]string)
	for _, line := range lines {
		fields := strings.Fields(line)
		position, err := strconv.Atoi(fields[0])
		if err != nil {
			t.Fatal(err)
		}
		said[es.Position(position)] = fields[1]
	}
	return said
}

// survived opens the files after a crash and checks that the history is complete up to everything acknowledged. It returns the head.
func survived(t *testing.T, path string, said map[es.Position]string) es.Position {
	t.Helper()
	s := open(t, path)
	records := all(t, s)
	for position, text := range said {
		if int(position) > len(records) || string(records[position-1].Data) != text {
			t.Errorf("%s was acknowledged at %d and is not there; the log has %d records", text, position, len(records))
		}
	}
	expectWholeAppends(t, records)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return es.Position(len(records))
}

// expectWholeAppends fails the test if part of an append is missing. Events without data belong to the next one with data.
func expectWholeAppends(t *testing.T, records []es.Record) {
	t.Helper()
	if n := len(records); n > 0 && records[n-1].Stream != stream("acknowledged") {
		t.Errorf("the log ends with %s at %d, which is half of an append", records[n-1].ID(), n)
	}
}

func TestKilled(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	path := file(t)
	said := make(map[es.Position]string)
	for range rounds {
		c := child.Start(t, "write", path, 1+rand.N(16))
		c.Await(1)
		time.Sleep(rand.N(20 * time.Millisecond)) // not synchronization: a random moment for the kill
		c.Stop()
		maps.Copy(said, acknowledged(t, c.Lines()))
		survived(t, path, said)
	}
	t.Logf("killed %d times, %d acknowledged appends", rounds, len(said))
}

func TestCutOff(t *testing.T) {
	path := file(t)
	const appends = 120 // few enough that SQLite does not checkpoint
	c := child.Start(t, "measure", path, appends, path+"-wal")
	lines := c.Await(appends)
	c.Stop()
	database, log := contents(t, path), contents(t, path+"-wal")
	for range 60 {
		line := strings.Fields(lines[rand.N(len(lines))])
		covered := number(line[2])
		cut := covered + rand.N(8<<10)
		var behind []byte
		switch rand.N(3) {
		case 0:
			behind = make([]byte, rand.N(16<<10)) // a file that was extended but not filled
		case 1:
			behind = bytes.Repeat([]byte{byte(rand.N(256))}, rand.N(16<<10))
		}
		copied := file(t)
		write := func(name string, data []byte) {
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(copied, database)
		write(copied+"-wal", append(bytes.Clone(log[:min(cut, len(log))]), behind...))
		head := survived(t, copied, acknowledged(t, lines[:indexOf(lines, line[0])+1]))
		if head < es.Position(number(line[0])) {
			t.Errorf("cut off at %d, the log ends at %d; position %s was acknowledged when it had %d bytes", cut, head, line[0], covered)
		}
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// indexOf returns the index of the line that begins with a position.
func indexOf(lines []string, position string) int {
	for i, line := range lines {
		if strings.HasPrefix(line, position+" ") {
			return i
		}
	}
	return -1
}
