package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/shape"
)

// AsyncAPI returns an AsyncAPI 3.0 document of a program that publishes events by a kafka.Relay with CloudEvents headers. title and version are
// those of the program's API. topics has, by name of the topic, the schemas of its events, as JSON returns them:
//
//	accounts, err := schema.JSON(account.Codec)
//	...
//	document, err := schema.AsyncAPI("Bank", "1.0.0", map[string]map[string][]byte{"bank.account": accounts})
//
// An empty title or version, a topic without events and a schema that is not a JSON object are errors that wrap [es.ErrInvalid].
func AsyncAPI(title, version string, topics map[string]map[string][]byte) ([]byte, error) {
	if title == "" || version == "" || len(topics) == 0 {
		return nil, fmt.Errorf("schema: %w: a document needs a title, a version and topics", es.ErrInvalid)
	}
	d := document{channels: make(object), operations: make(object), messages: make(object), schemas: object{"CloudEvent": headers}}
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		if err := d.topic(topic, topics[topic]); err != nil {
			return nil, fmt.Errorf("schema: %w: topic %s: %w", es.ErrInvalid, topic, err)
		}
	}
	return json.MarshalIndent(object{
		"asyncapi":           "3.0.0",
		"info":               object{"title": title, "version": version},
		"defaultContentType": "application/json",
		"channels":           d.channels,
		"operations":         d.operations,
		"components":         object{"messages": d.messages, "schemas": d.schemas},
	}, "", "\t")
}

type object = map[string]any

// headers are those of kafka.CloudEvents.
var headers = object{
	"type": "object",
	"properties": object{
		"content-type":     object{"type": "string"},
		"ce_specversion":   object{"type": "string", "const": "1.0"},
		"ce_id":            object{"type": "string", "description": "stream and version, and the part if a record has several messages"},
		"ce_source":        object{"type": "string", "description": "the id of the store"},
		"ce_type":          object{"type": "string", "description": "the name of the event"},
		"ce_time":          object{"type": "string", "format": "date-time"},
		"ce_subject":       object{"type": "string", "description": "the stream, as kind/id"},
		"ce_streamversion": object{"type": "string", "pattern": "^[0-9]+$"},
		"ce_position":      object{"type": "string", "pattern": "^[0-9]+$", "description": "grows with each record of the store; with ce_source it identifies a record"},
		"ce_correlationid": object{"type": "string"},
		"ce_causationid":   object{"type": "string"},
		"ce_meta":          object{"type": "string", "description": "other metadata, a JSON object of strings"},
		"ce_tags":          object{"type": "string", "description": "a JSON array of strings"},
		"ce_part":          object{"type": "string", "pattern": "^[0-9]+$"},
		"ce_traceparent":   object{"type": "string"},
		"ce_tracestate":    object{"type": "string"},
	},
	"required": []any{"content-type", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_streamversion", "ce_position"},
}

type document struct{ channels, operations, messages, schemas object }

var notInKeys = regexp.MustCompile(`[^A-Za-z0-9_.-]`)

// key returns a name for a part of the document, which no other part has.
func key(taken object, name string) string {
	base := notInKeys.ReplaceAllString(name, "_")
	k := base
	for n := 2; taken[k] != nil; n++ {
		k = base + "_" + strconv.Itoa(n)
	}
	return k
}

func (d *document) topic(topic string, events map[string][]byte) error {
	if topic == "" || len(events) == 0 {
		return fmt.Errorf("it needs a name and events")
	}
	channel := key(d.channels, topic)
	messages, refs := make(object), []any{}
	for _, name := range slices.Sorted(maps.Keys(events)) {
		s, err := parse(events[name])
		if err != nil {
			return fmt.Errorf("event %s: %w", name, err)
		}
		component := key(d.messages, topic+"."+name)
		d.messages[component] = d.message(component, name, s)
		k := key(messages, name)
		messages[k] = object{"$ref": "#/components/messages/" + component}
		refs = append(refs, object{"$ref": "#/channels/" + channel + "/messages/" + k})
	}
	d.channels[channel] = object{"address": topic, "messages": messages}
	d.operations[key(d.operations, "publish."+topic)] = object{"action": "send", "channel": object{"$ref": "#/channels/" + channel}, "messages": refs}
	return nil
}

func (d *document) message(component, name string, s shape.Schema) object {
	contentType, given := s[shape.ContentTypeKey].(string)
	if !given {
		contentType = "application/json"
	}
	delete(s, shape.ContentTypeKey)
	delete(s, "$schema")
	defs, _ := s["$defs"].(shape.Schema)
	delete(s, "$defs")
	moved := make(map[string]string)
	for _, def := range slices.Sorted(maps.Keys(defs)) {
		k := key(d.schemas, component+"."+def)
		d.schemas[k] = object{} // taken
		moved["#/$defs/"+def] = "#/components/schemas/" + k
	}
	for def, schema := range defs {
		d.schemas[strings.TrimPrefix(moved["#/$defs/"+def], "#/components/schemas/")] = redirect(schema, moved)
	}
	payload := key(d.schemas, component)
	d.schemas[payload] = redirect(s, moved)
	return object{
		"name":        name,
		"title":       name,
		"contentType": contentType,
		"headers": object{"allOf": []any{
			object{"$ref": "#/components/schemas/CloudEvent"},
			object{"properties": object{"ce_type": object{"const": name}, "content-type": object{"const": contentType}}},
		}},
		"payload":  object{"$ref": "#/components/schemas/" + payload},
		"bindings": object{"kafka": object{"key": object{"type": "string", "description": "the id of the stream"}, "bindingVersion": "0.5.0"}},
	}
}

// redirect returns a schema whose references lead to where definitions were moved. References in the fields' own names are left alone.
func redirect(v any, moved map[string]string) any {
	switch v := v.(type) {
	case shape.Schema:
		changed := make(object, len(v))
		for k, inner := range v {
			if to, isRef := inner.(string); isRef && k == "$ref" && moved[to] != "" {
				changed[k] = moved[to]
			} else {
				changed[k] = redirect(inner, moved)
			}
		}
		return changed
	case []any:
		changed := make([]any, len(v))
		for i, inner := range v {
			changed[i] = redirect(inner, moved)
		}
		return changed
	}
	return v
}
