package projection

import (
	"encoding/json"
	"time"

	"github.com/thalo-go/es"
)

// Parked is a record that a projection has set aside. It marshals to JSON.
type Parked struct {
	Name     string
	Version  int
	Record   es.Record
	Error    string    // "" for a record that waits behind another of its stream
	Attempts int       // of a record with an error
	At       time.Time // of parking, or of the last attempt
}

// Timer is a record that a reaction will handle later.
type Timer struct {
	Name   string
	Record es.Record // its Stream, Version and Position
	Due    time.Time
}

type timerJSON struct {
	Name     string      `json:"name"`
	ID       string      `json:"id"` // of the record
	Position es.Position `json:"position"`
	Due      time.Time   `json:"due"`
}

// MarshalJSON implements [json.Marshaler].
func (t Timer) MarshalJSON() ([]byte, error) {
	return json.Marshal(timerJSON{t.Name, t.Record.ID(), t.Record.Position, t.Due})
}

type parkedJSON struct {
	Name     string     `json:"name"`
	Version  int        `json:"version"`
	Record   recordJSON `json:"record"`
	Error    string     `json:"error,omitzero"`
	Attempts int        `json:"attempts"`
	At       time.Time  `json:"at,omitzero"`
}

type recordJSON struct {
	ID       string            `json:"id"`
	Stream   string            `json:"stream"`
	Version  es.Version        `json:"version"`
	Position es.Position       `json:"position"`
	Time     time.Time         `json:"time,omitzero"`
	Type     string            `json:"type"`
	Data     json.RawMessage   `json:"data,omitempty"`       // if it is JSON
	Base64   []byte            `json:"dataBase64,omitempty"` // if not
	Meta     map[string]string `json:"meta,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
}

// MarshalJSON implements [json.Marshaler]. Data that is not JSON becomes dataBase64.
func (p Parked) MarshalJSON() ([]byte, error) {
	r := recordJSON{
		ID: p.Record.ID(), Stream: p.Record.Stream.String(), Version: p.Record.Version, Position: p.Record.Position, Time: p.Record.Time,
		Type: p.Record.Type, Meta: p.Record.Meta, Tags: p.Record.Tags,
	}
	if json.Valid(p.Record.Data) {
		r.Data = p.Record.Data
	} else {
		r.Base64 = p.Record.Data
	}
	return json.Marshal(parkedJSON{p.Name, p.Version, r, p.Error, p.Attempts, p.At})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (p *Parked) UnmarshalJSON(data []byte) error {
	var j parkedJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	stream, err := es.ParseStream(j.Record.Stream)
	if err != nil {
		return err
	}
	r := es.Record{
		Stream: stream, Version: j.Record.Version, Position: j.Record.Position, Time: j.Record.Time,
		Type: j.Record.Type, Data: j.Record.Data, Meta: j.Record.Meta, Tags: j.Record.Tags,
	}
	if j.Record.Base64 != nil {
		r.Data = j.Record.Base64
	}
	*p = Parked{j.Name, j.Version, r, j.Error, j.Attempts, j.At}
	return nil
}
