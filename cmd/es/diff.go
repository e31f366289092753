package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/thalo-go/es/projection"
)

type diff struct {
	Old      string   `arg:"" help:"The projection whose read model is in use, as es status names it: balances@1."`
	New      string   `arg:"" help:"The one to compare it with: balances@2."`
	OldTable string   `required:"" placeholder:"TABLE" help:"The table that the first one writes."`
	NewTable string   `required:"" placeholder:"TABLE" help:"The table that the second one writes."`
	Key      []string `required:"" placeholder:"COLUMN" help:"The columns that tell rows apart."`
	Limit    int      `short:"n" default:"20" help:"How many differences at most; 0 lists all (20)."`
}

// differenceObject is the JSON of a difference.
type differenceObject struct {
	Key  map[string]any `json:"key"`
	Old  map[string]any `json:"old"`
	New  map[string]any `json:"new"`
	Last string         `json:"last,omitzero"`
}

// Run is called by kong.
func (v *diff) Run(s *session) (err error) {
	db, err := s.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	old := projection.Table{Table: v.OldTable, Key: v.Key}
	old.Projection, old.Version = parseProjection(v.Old)
	other := projection.Table{Table: v.NewTable, Key: v.Key}
	other.Projection, other.Version = parseProjection(v.New)
	ctx, cancel := context.WithTimeout(s.ctx, s.cli.Timeout)
	defer cancel()
	n := 0
	for d, err := range db.Diff(ctx, old, other) {
		if err != nil {
			return err
		}
		if n++; v.Limit > 0 && n > v.Limit {
			if !s.out.json {
				s.out.line("... and more: give --limit 0")
			}
			break
		}
		if err := s.difference(d); err != nil {
			return err
		}
	}
	if n == 0 && !s.out.json {
		s.out.line("The read models are alike.")
	}
	if n > 0 {
		return errDamage
	}
	return nil
}

func (s *session) difference(d projection.Difference) error {
	last := ""
	if d.Last.Version > 0 {
		last = d.Last.ID()
	}
	if s.out.json {
		return s.out.object(differenceObject{d.Key, d.Old, d.New, last})
	}
	s.out.line("%s", columns(d.Key))
	switch {
	case d.Old == nil:
		s.out.line("    only in the new one: %s", columns(d.New))
	case d.New == nil:
		s.out.line("    only in the old one: %s", columns(d.Old))
	default:
		changed := func(row, other map[string]any) map[string]any {
			row = maps.Clone(row)
			maps.DeleteFunc(row, func(name string, value any) bool { return fmt.Sprint(value) == fmt.Sprint(other[name]) })
			return row
		}
		s.out.line("    old: %s", columns(changed(d.Old, d.New)))
		s.out.line("    new: %s", columns(changed(d.New, d.Old)))
	}
	if last != "" {
		s.out.line("    last event: %s, %s at position %d", printable(last), printable(d.Last.Type), d.Last.Position)
	}
	return nil
}

// columns lists the values of a row, by the names of its columns.
func columns(row map[string]any) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(row)) {
		var text string
		switch value := row[name].(type) {
		case nil:
			text = "null"
		case []byte:
			text = string(value)
		case map[string]any, []any:
			data, err := json.Marshal(value)
			text = string(data)
			if err != nil {
				text = fmt.Sprint(value)
			}
		default:
			text = fmt.Sprint(value)
		}
		list = append(list, printable(name)+" "+printable(text))
	}
	return strings.Join(list, ", ")
}
