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

// An Entry is a line in the history of a process: a request that it sent, or an answer that it received.
type Entry struct {
	At      time.Time
	Process string `json:",omitempty"` // name and incarnation; set by the reader
	Kind    Kind
	Command string `json:",omitempty"` // the command id

	Parts    []Part      `json:",omitempty"` // of Sent: what is to be appended; of Acknowledged: where it is
	Position es.Position `json:",omitempty"` // of Acknowledged: position of the last record; 0 if not reported

	Text string `json:",omitempty"` // the error, or the note
}

// A Part is what a command does to one stream.
type Part struct {
	Stream es.Stream
	Events []string   `json:",omitempty"` // type and data, as returned by content
	First  es.Version `json:",omitempty"`
	Last   es.Version `json:",omitempty"`
}

// A Kind is the kind of an Entry.
type Kind string

// Kinds of Entry. Every Sent is followed by one of the next five, unless the process ends first.
const (
	Sent         Kind = "sent"
	Acknowledged Kind = "acknowledged"
	Refused      Kind = "refused"  // by the rules; nothing was written
	Conflicted   Kind = "conflict" // after all retries; nothing was written
	Failed       Kind = "failed"   // with an error that guarantees that nothing was written
	Unknown      Kind = "unknown"

	Retried  Kind = "retried"  // counted in the summary only
	Violated Kind = "violated" // the process has observed a violation
	Died     Kind = "died"     // the process failed with the error in Text
)

// content formats a record for a history.
func content(r es.Record) string { return r.Type + " " + string(r.Data) }

// A History is the file to which a process writes its entries. When note returns, the kernel has the line, so it
// survives the death of the process.
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
		panic(fmt.Sprintf("chaos: write the history: %v", err))
	}
}

func (h *History) close() error { return h.file.Close() }

const historySuffix = ".history"

// readHistories reads the histories of all processes in a folder. The last line of a killed process may be truncated;
// then what it announces was not yet done.
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
