package shape

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// File is the content of a golden file of package estest.
type File struct {
	About  string            `json:"about"`
	Events map[string]*Event `json:"events"`
	Sum    string            `json:"sum"` // of the names and sums of all events
}

const about = "Written by estest.TestSchemas: every shape of every event that was ever stored, the oldest first. Do not edit it. Run go test -update-schemas."

// Event has every shape that an event was stored in, the oldest first.
type Event struct {
	Shapes []Stored `json:"shapes"`
	Sum    string   `json:"sum"` // of the shapes
}

// Stored is a shape that an event was stored in, with a sample.
type Stored struct {
	ContentType string          `json:"contentType"`
	Schema      Schema          `json:"schema"`
	Sample      json.RawMessage `json:"sample"`         // as JSON, for people and comparisons
	Data        []byte          `json:"data,omitempty"` // the sample as it is stored, if that is not JSON
}

// Bytes returns the data of the sample.
func (s Stored) Bytes() []byte {
	if len(s.Data) > 0 || s.ContentType != "application/json" {
		return s.Data
	}
	return s.Sample
}

// ReadFile reads a golden file, and refuses one that was edited by hand. A file that does not exist is empty.
func ReadFile(file string) (*File, error) {
	golden := &File{About: about, Events: make(map[string]*Event)}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return golden, nil
	}
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	d.DisallowUnknownFields()
	if err := d.Decode(golden); err != nil {
		return nil, fmt.Errorf("%s was edited by hand, or is not of TestSchemas: %w: restore it", file, err)
	}
	for _, name := range slices.Sorted(maps.Keys(golden.Events)) {
		if e := golden.Events[name]; e == nil || len(e.Shapes) == 0 || e.Sum != sum(e.Shapes) {
			return nil, fmt.Errorf("%s was edited by hand at %q: restore it, and run go test -update-schemas", file, name)
		}
	}
	if golden.Sum != golden.sum() {
		return nil, fmt.Errorf("%s was edited by hand: an event was added, removed or renamed in it: restore it, and run go test -update-schemas", file)
	}
	return golden, nil
}

func (g *File) sum() string {
	sums := make(map[string]string)
	for name, e := range g.Events {
		sums[name] = e.Sum
	}
	return sum(sums)
}

// sum returns a hash of a value that does not depend on how its JSON is laid out.
func sum(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	normal, err := Decode(data)
	if err != nil {
		return ""
	}
	data, _ = json.Marshal(normal) // it was JSON
	hash := sha256.Sum256(data)
	return hex.EncodeToString(hash[:8])
}

// Write sets the sums and writes the file.
func (g *File) Write(file string) error {
	for _, e := range g.Events {
		e.Sum = sum(e.Shapes)
	}
	g.About, g.Sum = about, g.sum()
	data, err := json.MarshalIndent(g, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	// A test that is killed leaves the file as it was.
	part := file + ".part"
	if err := os.WriteFile(part, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(part, file)
}
