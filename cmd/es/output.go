package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/thalo-go/es"
)

// output writes lines for people or JSON objects for programs.
type output struct {
	w    *bufio.Writer
	json bool

	decoder *decoder // nil shows data as it is
}

func newOutput(w io.Writer, json bool) *output { return &output{w: bufio.NewWriter(w), json: json} }

func (o *output) flush() error { return o.w.Flush() }

// line writes a line for people. flush returns the error of the writer.
func (o *output) line(format string, args ...any) { fmt.Fprintf(o.w, format+"\n", args...) }

// object writes a JSON object on one line.
func (o *output) object(v any) error {
	e := json.NewEncoder(o.w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// recordObject is the JSON of a record.
type recordObject struct {
	Position es.Position       `json:"position"`
	Stream   string            `json:"stream"`
	Version  es.Version        `json:"version"`
	Time     time.Time         `json:"time"`
	Type     string            `json:"type"`
	Data     json.RawMessage   `json:"data,omitempty"`       // if it is JSON
	Base64   []byte            `json:"dataBase64,omitempty"` // if not
	Meta     map[string]string `json:"meta,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
}

const recordHeader = "POSITION  TIME                         STREAM/VERSION            TYPE              DATA"

// record writes a record.
func (o *output) record(r es.Record) error {
	r.Data = o.decoder.data(r)
	if o.json {
		return o.object(asObject(r))
	}
	o.line("%s", recordLine(r))
	return nil
}

func recordLine(r es.Record) string {
	return fmt.Sprintf("%8d  %s  %-24s  %-16s  %s", r.Position, timestamp(r.Time), printable(r.ID()), printable(r.Type), content(r))
}

func asObject(r es.Record) recordObject {
	o := recordObject{Position: r.Position, Stream: r.Stream.String(), Version: r.Version, Time: r.Time, Type: r.Type, Meta: r.Meta, Tags: r.Tags}
	if json.Valid(r.Data) {
		o.Data = r.Data
	} else {
		o.Base64 = r.Data
	}
	return o
}

// content returns the data, made printable, followed by the metadata.
func content(r es.Record) string {
	var b strings.Builder
	var compact bytes.Buffer
	if json.Compact(&compact, r.Data) == nil {
		b.WriteString(printable(compact.String()))
	} else {
		b.WriteString(printable(string(r.Data)))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Meta)) {
		fmt.Fprintf(&b, "  %s=%s", printable(key), printable(r.Meta[key]))
	}
	for _, tag := range r.Tags {
		b.WriteString("  #" + printable(tag))
	}
	return b.String()
}

// timestamp has a fixed width, so that columns line up.
func timestamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000000Z") }

// printable quotes text with characters that a terminal would interpret or not show.
func printable(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
