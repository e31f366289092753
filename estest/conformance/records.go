package conformance

import (
	"fmt"

	"github.com/thalo-go/es"
)

func stream(id string) es.Stream { return es.Stream{Kind: "estest", ID: id} }

func event(data string) es.Record { return es.Record{Type: "happened", Data: []byte(data)} }

// events returns n events with the data 1, 2, 3 and so on.
func events(n int) []es.Record {
	records := make([]es.Record, n)
	for i := range records {
		records[i] = event(fmt.Sprint(i + 1))
	}
	return records
}

// add returns an Append of n events at any version.
func add(stream es.Stream, n int) es.Append {
	return es.Append{Stream: stream, Expected: es.AnyVersion, Events: events(n)}
}

func describe(appends []es.Append) string {
	if len(appends) > 4 {
		return fmt.Sprintf("%d appends, the first of them %s", len(appends), describe(appends[:1]))
	}
	text := ""
	for i, a := range appends {
		if i > 0 {
			text += "; "
		}
		text += fmt.Sprintf("%d events to %.60q at version %d", len(a.Events), a.Stream, a.Expected)
		if a.Expected == es.AnyVersion {
			text = text[:len(text)-len("version -1")] + "any version"
		}
		if a.Command != "" {
			text += fmt.Sprintf(" by command %.60q", a.Command)
		}
	}
	return text
}

// data returns the data of records as text.
func data(records []es.Record) []string {
	texts := make([]string, len(records))
	for i, r := range records {
		texts[i] = string(r.Data)
	}
	return texts
}
