package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/thalo-go/es"
)

// An Entry is a line in the history of a process: what it asked for, or what it was told.
type Entry struct {
	At      time.Time
	Process string `json:",omitempty"` // name and incarnation; set when it is read
	Kind    Kind
	Command string `json:",omitempty"` // the identity of what was sent

	Parts    []Part      `json:",omitempty"` // of Sent what is to be appended, of Acknowledged where it is
	Position es.Position `json:",omitempty"` // of Acknowledged: of the last record; 0 if it was not said

	Text string `json:",omitempty"` // the error, or the note
}

// A Part is what a command does to one stream.
type Part struct {
	Stream es.Stream
	Events []string   `json:",omitempty"` // type and data, as content returns them
	First  es.Version `json:",omitempty"`
	Last   es.Version `json:",omitempty"`
}

// A Kind is what an Entry is about.
type Kind string

// Kinds of Entry. Every Sent is followed by one of the five behind it, unless the process has ended before.
const (
	Sent         Kind = "sent"
	Acknowledged Kind = "acknowledged"
	Refused      Kind = "refused"  // by the rules: nothing was written
	Conflicted   Kind = "conflict" // again and again, until the retries ran out: nothing was written
	Failed       Kind = "failed"   // with an error that says that nothing was written
	Unknown      Kind = "unknown"

	Retried  Kind = "retried"  // nothing but a note for the summary
	Violated Kind = "violated" // the process itself has seen what must not be
	Died     Kind = "died"     // the process could not go on, and says why
)

// content is a record as a history has it.
func content(r es.Record) string { return r.Type + " " + string(r.Data) }

// A History is where a process writes down what happens to it. A line is in the hands of the kernel when note returns, so that it is
// there when the process is killed.
type History struct {
	mu   sync.Mutex
	file *os.File
}

func createHistory(path string) (*History, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &History{file: file}, nil
}

func (h *History) note(e Entry) {
	e.At = time.Now().UTC()
	line, err := json.Marshal(e)
	if err == nil {
		h.mu.Lock()
		_, err = h.file.Write(append(line, '\n'))
		h.mu.Unlock()
	}
	if err != nil {
		panic(fmt.Sprintf("chaos: the history cannot be written, and without it nothing can be checked: %v", err))
	}
}

func (h *History) close() error { return h.file.Close() }

const historySuffix = ".history"

// readHistories reads the histories of all processes in a folder. The last line of a process that was killed may be cut off: then what it
// was to say was not yet done.
func readHistories(folder string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		files, err := filepath.Glob(filepath.Join(folder, "*"+historySuffix))
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, file := range files {
			if !readHistory(file, yield) {
				return
			}
		}
	}
}

func readHistory(path string, yield func(Entry, error) bool) bool {
	file, err := os.Open(path)
	if err != nil {
		return yield(Entry{}, err)
	}
	defer file.Close()
	name := filepath.Base(path)
	name = name[:len(name)-len(historySuffix)]
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return true
		}
		var e Entry
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			return yield(Entry{}, fmt.Errorf("chaos: %s: %w", path, err))
		}
		e.Process = name
		if !yield(e, nil) {
			return false
		}
	}
}
