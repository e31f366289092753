package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/thalo-go/es"
)

// form is how the verbs that show events show binary data.
type form struct {
	Descriptor string            `placeholder:"FILE" help:"A set of descriptors of protocol buffers, by which data is shown as JSON: protoc --include_imports -o FILE x.proto."`
	Message    map[string]string `placeholder:"TYPE=MESSAGE" mapsep:"none" help:"The message of a type of events: opened.v2=bank.v1.Opened. Without it, that of the same name. May be repeated."`
}

// A decoder turns the data of protocol buffers into JSON.
type decoder struct {
	messages map[string]protoreflect.MessageDescriptor // by type of events, once looked up; nil if it has none
	given    map[string]string
	files    *protoregistry.Files
	types    *dynamicpb.Types
	notes    io.Writer
	noted    map[string]bool // types of events whose data could not be read
}

// decoder returns the decoder that the flags ask for, or nil.
func (f form) decoder(notes io.Writer) (*decoder, error) {
	if f.Descriptor == "" {
		if len(f.Message) > 0 {
			return nil, errors.New("--message needs --descriptor, the file with the descriptors of the messages")
		}
		return nil, nil //nolint:nilnil // nothing is to be decoded
	}
	data, err := os.ReadFile(f.Descriptor)
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &set); err != nil || len(set.GetFile()) == 0 {
		return nil, fmt.Errorf("%s is not a set of descriptors: make it by protoc --include_imports -o %s x.proto", f.Descriptor, f.Descriptor)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: make it with --include_imports", f.Descriptor, err)
	}
	d := &decoder{make(map[string]protoreflect.MessageDescriptor), f.Message, files, dynamicpb.NewTypes(files), notes, make(map[string]bool)}
	for event, name := range f.Message {
		found, err := files.FindDescriptorByName(protoreflect.FullName(name))
		message, isMessage := found.(protoreflect.MessageDescriptor)
		if err != nil || !isMessage {
			return nil, fmt.Errorf("%s has no message %s for %s: give its full name, such as bank.v1.Opened", f.Descriptor, name, event)
		}
		d.messages[event] = message
	}
	return d, nil
}

// data returns the data of a record, as JSON if it is a message. Data of a type of events without a message stays as it is, and so does what is not
// completely understood: a note says so, once for a type.
func (d *decoder) data(r es.Record) []byte {
	if d == nil {
		return r.Data
	}
	message, known := d.messages[r.Type]
	if !known {
		message = d.find(r.Type)
		d.messages[r.Type] = message
	}
	if message == nil {
		return r.Data
	}
	text, err := d.text(message, r.Data)
	if err == nil {
		return text
	}
	if !json.Valid(r.Data) && !d.noted[r.Type] {
		d.noted[r.Type] = true
		fmt.Fprintf(d.notes, "es: %s, type %s: the data is not a %s: %v; give another by --message\n", printable(r.ID()), printable(r.Type), message.FullName(), err)
	}
	return r.Data
}

func (d *decoder) text(message protoreflect.MessageDescriptor, data []byte) ([]byte, error) {
	m := dynamicpb.NewMessage(message)
	if err := (proto.UnmarshalOptions{Resolver: d.types}).Unmarshal(data, m); err != nil {
		return nil, err
	}
	if n := len(m.GetUnknown()); n > 0 {
		return nil, fmt.Errorf("%d bytes are of fields that it does not have", n)
	}
	return protojson.MarshalOptions{Resolver: d.types, EmitDefaultValues: true}.Marshal(m)
}

// find returns the only message whose name is that of a type of events, apart from case, package and punctuation, or nil.
func (d *decoder) find(event string) (found protoreflect.MessageDescriptor) {
	if same, err := d.files.FindDescriptorByName(protoreflect.FullName(event)); err == nil {
		if message, isMessage := same.(protoreflect.MessageDescriptor); isMessage {
			return message
		}
	}
	count := 0
	d.files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Messages().Len() {
			if message := file.Messages().Get(i); plain(string(message.Name())) == plain(event) {
				found = message
				count++
			}
		}
		return true
	})
	if count != 1 {
		return nil
	}
	return found
}

var punctuation = strings.NewReplacer("-", "", "_", "", ".", "")

func plain(name string) string { return strings.ToLower(punctuation.Replace(name)) }
