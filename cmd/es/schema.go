package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/thalo-go/es/internal/shape"
	events "github.com/thalo-go/es/schema"
)

type schema struct {
	Files   []string          `arg:"" optional:"" help:"Golden files of estest.TestSchemas: order/testdata/events.json."`
	Title   string            `help:"Write an AsyncAPI document with this title, and not JSON Schemas."`
	Release string            `name:"api-version" default:"1.0.0" help:"The version in the AsyncAPI document (1.0.0)."`
	Topics  map[string]string `name:"topic" mapsep:"none" placeholder:"TOPIC=FILE" help:"A topic of the AsyncAPI document, with the golden file of its events. May be repeated."`
}

// Run is called by kong. It needs no store, and no codec: the golden files of a program have the schemas of its events.
func (v *schema) Run(s *session) error {
	if (v.Title == "") != (len(v.Topics) == 0) || (v.Title == "") == (len(v.Files) == 0) {
		return errors.New("give golden files for JSON Schemas, or --title and --topic for an AsyncAPI document")
	}
	if v.Title == "" {
		return v.schemas(s)
	}
	topics := make(map[string]map[string][]byte)
	for topic, file := range v.Topics {
		schemas, err := goldenSchemas(file)
		if err != nil {
			return err
		}
		topics[topic] = schemas
	}
	document, err := events.AsyncAPI(v.Title, v.Release, topics)
	if err == nil {
		s.out.line("%s", document)
	}
	return err
}

// schemas writes an object with the schema of each event.
func (v *schema) schemas(s *session) error {
	all := make(map[string]json.RawMessage)
	for _, file := range v.Files {
		schemas, err := goldenSchemas(file)
		if err != nil {
			return err
		}
		for name, data := range schemas {
			if all[name] != nil {
				return fmt.Errorf("%s: %s is in two files: write the schemas of each file on their own", file, name)
			}
			all[name] = data
		}
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err == nil {
		s.out.line("%s", data)
	}
	return err
}

// goldenSchemas returns the schemas of the events in a golden file, each of its latest shape.
func goldenSchemas(file string) (map[string][]byte, error) {
	golden, err := shape.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(golden.Events) == 0 {
		return nil, fmt.Errorf("%s has no events: estest.TestSchemas writes it", file)
	}
	schemas := make(map[string][]byte)
	for _, name := range slices.Sorted(maps.Keys(golden.Events)) {
		shapes := golden.Events[name].Shapes
		last := shapes[len(shapes)-1]
		if schemas[name], err = shape.Document(name, last.ContentType, last.Schema); err != nil {
			return nil, err
		}
	}
	return schemas, nil
}
