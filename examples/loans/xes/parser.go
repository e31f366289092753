package xes

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

var (
	errCut    = errors.New("the file ends here, before its end: it is cut off; get it again, whole")
	errNotXES = errors.New("there is no <log> here: this is not XES")
)

type parser struct {
	xml     *xml.Decoder
	globals [2]Attributes // of traces, of events
}

const (
	traces = iota
	events
)

// open detects whether the file is compressed, and whether it can be XES.
func (p *parser) open(r io.Reader) error {
	const size = 64 << 10
	text := bufio.NewReaderSize(r, size)
	if magic, _ := text.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(text)
		if err != nil {
			return err
		}
		text = bufio.NewReaderSize(unpacked, size)
	}
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" {
		_, _ = text.Discard(len(mark)) // the byte order mark that some editors write
	}
	// A file that is not XML would be read into memory as one long text.
	if begin, err := text.Peek(512); !bytes.HasPrefix(bytes.TrimSpace(begin), []byte("<")) && (err == nil || err == io.EOF) {
		return errNotXES
	}
	p.xml = xml.NewDecoder(text)
	p.xml.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("the file is in %s: convert it to UTF-8", charset)
	}
	return nil
}

// at adds the place to an error.
func (p *parser) at(err error) error {
	e := &Error{Line: 1, Err: err}
	if p.xml != nil {
		e.Line, _ = p.xml.InputPos()
		e.Byte = p.xml.InputOffset()
	}
	var syntax *xml.SyntaxError
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax) && syntax.Msg == "unexpected EOF":
		e.Err = errCut
	case syntax != nil:
		e.Line, e.Err = syntax.Line, errors.New(syntax.Msg)
	case errors.As(err, &corrupt), errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader):
		e.Err = fmt.Errorf("the file is damaged, get it again: %w", err)
	}
	return e
}

// log reads the whole file.
func (p *parser) log(yield func(Trace) bool) error {
	root, err := p.start("xml")
	if err != nil {
		return err
	}
	if root == nil || root.Name.Local != "log" {
		return errNotXES
	}
	for {
		e, err := p.start("log")
		if err != nil {
			return err
		}
		if e == nil {
			break
		}
		switch name := e.Name.Local; {
		case name == "trace":
			t, err := p.trace()
			if err != nil {
				return err
			}
			if !yield(t) {
				return nil // the loop has ended
			}
		case name == "global":
			err = p.global(*e)
		case name == "extension", name == "classifier", isAttribute(name):
			err = p.xml.Skip()
		default:
			err = misplaced(name, "log")
		}
		if err != nil {
			return err
		}
	}
	// Read to the last byte, so that gzip compares its checksum.
	if more, err := p.start("xml"); err != nil || more == nil {
		return err
	}
	return errors.New("something follows </log>: the file holds more than one log; split it")
}

// global reads the global attributes of traces or events.
func (p *parser) global(start xml.StartElement) error {
	var into *Attributes
	switch scope := attr(start, "scope"); scope {
	case "trace":
		into = &p.globals[traces]
	case "event":
		into = &p.globals[events]
	default:
		return fmt.Errorf("<global> of scope %q: there are trace and event", scope)
	}
	for {
		e, err := p.start("global")
		if e == nil || err != nil {
			return err
		}
		if err := p.attribute(into, *e, "global"); err != nil {
			return err
		}
	}
}

func (p *parser) trace() (Trace, error) {
	var t Trace
	t.Line, _ = p.xml.InputPos()
	for {
		e, err := p.start("trace")
		switch {
		case err != nil:
			return t, err
		case e == nil:
			t.Attributes = withDefaults(t.Attributes, p.globals[traces])
			return t, nil
		case e.Name.Local != "event":
			err = p.attribute(&t.Attributes, *e, "trace")
		case len(t.Events) == MaxEvents:
			err = fmt.Errorf("the trace has more than %d events: split it", MaxEvents)
		default:
			var event Event
			event, err = p.event()
			t.Events = append(t.Events, event)
		}
		if err != nil {
			return t, err
		}
	}
}

func (p *parser) event() (Event, error) {
	event := Event{Attributes: make(Attributes, 0, 4)}
	event.Line, _ = p.xml.InputPos()
	for {
		e, err := p.start("event")
		if err != nil {
			return event, err
		}
		if e == nil {
			event.Attributes = withDefaults(event.Attributes, p.globals[events])
			return event, nil
		}
		if err := p.attribute(&event.Attributes, *e, "event"); err != nil {
			return event, err
		}
	}
}

// attribute reads one attribute of an element and skips what is nested in it.
func (p *parser) attribute(into *Attributes, start xml.StartElement, within string) error {
	name := start.Name.Local
	if !isAttribute(name) {
		return misplaced(name, within)
	}
	a := Attribute{Type: name, Key: attr(start, "key"), Value: attr(start, "value")}
	if a.Key == "" {
		return fmt.Errorf("<%s> within <%s> has no key", name, within)
	}
	if _, twice := into.Value(a.Key); twice {
		return fmt.Errorf("<%s> has two values of %q", within, a.Key)
	}
	*into = append(*into, a)
	return p.xml.Skip()
}

// start returns the start of the next element within another, or nil at the end of that element or of the file.
func (p *parser) start(within string) (*xml.StartElement, error) {
	for {
		token, err := p.xml.Token()
		if errors.Is(err, io.EOF) {
			return nil, nil // encoding/xml has checked that all elements are closed
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			return &token, nil
		case xml.EndElement:
			return nil, nil
		case xml.CharData:
			// XES has no text. If there is any, the "<" of an element may have been lost.
			if text := bytes.TrimSpace(token); len(text) > 0 {
				return nil, fmt.Errorf("text before this, within <%s>: %.40q", within, text)
			}
		}
	}
}

func withDefaults(own, globals Attributes) Attributes {
	for _, g := range globals {
		if _, found := own.Value(g.Key); !found {
			own = append(own, g)
		}
	}
	return own
}

func isAttribute(name string) bool {
	switch name {
	case "string", "date", "int", "float", "boolean", "id", "list", "container":
		return true
	}
	return false
}

func misplaced(name, within string) error {
	return fmt.Errorf("<%s> has no place within <%s>", name, within)
}

func attr(start xml.StartElement, name string) string {
	for i := range start.Attr {
		if start.Attr[i].Name.Local == name {
			return start.Attr[i].Value
		}
	}
	return ""
}
