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

// What a crash may leave behind is tested in three ways. None of them cuts the power: that the disk has what was synced is
// for SQLite's own tests and the disk's maker. Ours is to have asked for the sync before the acknowledgement; see TestDurablePragmas.
//
//   - A process is killed. What it had written stays in the system's cache, so this shows that no acknowledgement comes early
//     and that nothing half done is taken for whole.
//   - A process is stopped and its files are copied: the same, at many more moments. It must be stopped, as the two files
//     belong together: copied under way, one of them would be newer, which no crash can bring about. The -shm file is an index
//     into the write-ahead log that is made anew.
//   - The write-ahead log is cut off, or followed by rubbish, anywhere behind what an acknowledgement covers. That is what
//     a power cut leaves: all that was synced, and any part of what was not. TestTornWrites does so to copies taken under load,
//     and tears pages of the database besides that a checkpoint may have been writing.

// acknowledged is what a writing child has said: the last position of each append, and its text.
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

// survived opens what a crash has left and checks that it is a whole history with all that was acknowledged. It returns the head.
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

// expectWholeAppends fails the test if part of an append is there: the events without data belong to the one with data that follows.
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
		time.Sleep(rand.N(20 * time.Millisecond)) // not to wait for anything: so that it is killed at any moment
		c.Stop()
		maps.Copy(said, acknowledged(t, c.Lines()))
		survived(t, path, said)
	}
	t.Logf("killed %d times, %d acknowledged appends", rounds, len(said))
}

func TestCutOff(t *testing.T) {
	path := file(t)
	const appends = 120 // fewer than make SQLite bring the log into the file
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
			behind = make([]byte, rand.N(16<<10)) // a file that has grown and was not filled
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
