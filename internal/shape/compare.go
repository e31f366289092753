package shape

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
)

// Breaks returns why data of an old schema cannot be read completely by the type of a new one. It returns nothing if that is safe: each value
// that was stored has a place, and fields that were added are zero in old data. Both schemas are Normal.
//
// What a type makes of itself by a method is not compared: a stored sample must tell.
func Breaks(old, now Schema) []string {
	c := comparison{old: old, now: now, seen: make(map[[2]string]bool)}
	c.compare("", old, now)
	return c.breaks
}

type comparison struct {
	old, now Schema // the roots, for references
	seen     map[[2]string]bool
	breaks   []string
}

func (c *comparison) broken(path, format string, args ...any) {
	c.breaks = append(c.breaks, cmp.Or(strings.TrimPrefix(path, "."), "the event")+" "+fmt.Sprintf(format, args...))
}

// part is a part of a schema without references.
type part struct {
	Schema
	kind string // the type, or one of our own
	null bool
}

// String describes a part in a message.
func (p part) String() string {
	text := p.kind
	switch {
	case p.kind == "integer":
		text = fmt.Sprintf("integer from %v to %v", p.Schema["minimum"], p.Schema["maximum"])
	case p.kind == "number":
		text = fmt.Sprint("number (", p.Schema["format"], ")")
	case p.kind == "array" && p.Schema["maxItems"] != nil:
		text = fmt.Sprint("array of ", p.Schema["maxItems"])
	case p.kind == "quoted":
		text = "JSON in a string"
	}
	if p.null && p.kind != "array" && p.kind != "map" && p.kind != "bytes" {
		text += " or null"
	}
	return text
}

func resolve(root, s Schema) part {
	p := part{Schema: s}
	if union, isUnion := s["anyOf"].([]any); isUnion && len(union) == 2 {
		p.Schema, _ = union[0].(Schema)
		p.null = true
	}
	for range 100 { // references lead to definitions
		ref, isRef := p.Schema["$ref"].(string)
		if !isRef {
			break
		}
		defs, _ := root["$defs"].(Schema)
		p.Schema, _ = defs[strings.TrimPrefix(ref, "#/$defs/")].(Schema)
	}
	switch kind := p.Schema["type"].(type) {
	case string:
		p.kind = kind
	case []any:
		for _, k := range kind {
			if k == "null" {
				p.null = true
			} else if p.kind == "" {
				p.kind, _ = k.(string)
			}
		}
	}
	comment, _ := p.Schema["$comment"].(string)
	switch {
	case strings.HasPrefix(comment, "encoded by ") && p.kind == "":
		p.kind = "custom"
	case strings.HasPrefix(comment, "encoded by "):
		p.kind = "text"
	case p.kind == "":
		p.kind = "any"
	case p.kind == "string" && p.Schema["contentEncoding"] != nil:
		p.kind = "bytes"
	case p.kind == "string" && p.Schema["contentSchema"] != nil:
		p.kind = "quoted"
	case p.kind == "string" && p.Schema["format"] == "date-time":
		p.kind = "time"
	case p.kind == "object" && p.Schema["additionalProperties"] != nil:
		p.kind = "map"
	}
	return p
}

func (c *comparison) compare(path string, old, now Schema) {
	o, n := resolve(c.old, old), resolve(c.now, now)
	switch {
	case o.kind == "custom" || n.kind == "custom" || o.kind == "text" && n.kind == "text":
		return // the sample must tell
	case o.null && !n.null && n.kind != "any":
		c.broken(path, "was %v, is %v, and null would read as the zero value", o, n)
		return
	case o.kind != n.kind:
		if !widens(o, n) {
			c.broken(path, "was %v, is %v", o, n)
		}
		return
	}
	switch o.kind {
	case "integer":
		if less(n.Schema["maximum"], o.Schema["maximum"]) || less(o.Schema["minimum"], n.Schema["minimum"]) {
			c.broken(path, "was %v, is %v", o, n)
		}
	case "number":
		rank := map[any]int{"float": 1, "double": 2, "decimal": 3}
		if rank[n.Schema["format"]] < rank[o.Schema["format"]] {
			c.broken(path, "was %v, is %v", o, n)
		}
	case "array":
		if size := n.Schema["maxItems"]; size != nil && (o.Schema["maxItems"] == nil || less(size, o.Schema["maxItems"])) {
			c.broken(path, "was %v, is %v", o, n)
		}
		c.within(path+"[]", o.Schema["items"], n.Schema["items"])
	case "map":
		if keys := n.Schema["propertyNames"]; keys != nil && !reflect.DeepEqual(keys, o.Schema["propertyNames"]) {
			c.broken(path, "has other keys")
		}
		c.within(path+"[]", o.Schema["additionalProperties"], n.Schema["additionalProperties"])
	case "quoted":
		c.within(path, o.Schema["contentSchema"], n.Schema["contentSchema"])
	case "object":
		c.object(path, old, now, o, n)
	}
}

func (c *comparison) within(path string, old, now any) {
	o, _ := old.(Schema)
	n, _ := now.(Schema)
	c.compare(path, o, n)
}

// widens reports whether each value of a part can be read as another kind.
func widens(o, n part) bool {
	switch o.kind + " " + n.kind {
	case "time string", "text string":
		return true
	case "integer number":
		limit := map[any]string{"float": "16777216", "double": "9007199254740992"}[n.Schema["format"]]
		return limit == "" || !less(json.Number(limit), o.Schema["maximum"]) && !less(o.Schema["minimum"], json.Number("-"+limit))
	}
	return false
}

// less compares two numbers of a schema.
func less(a, b any) bool {
	x, okX := new(big.Float).SetPrec(128).SetString(fmt.Sprint(a))
	y, okY := new(big.Float).SetPrec(128).SetString(fmt.Sprint(b))
	return okX && okY && x.Cmp(y) < 0
}

func (c *comparison) object(path string, old, now Schema, o, n part) {
	if from, isRef := ref(old); isRef {
		if to, isRef := ref(now); isRef {
			if c.seen[[2]string{from, to}] {
				return
			}
			c.seen[[2]string{from, to}] = true
		}
	}
	was, _ := o.Schema["properties"].(Schema)
	is, _ := n.Schema["properties"].(Schema)
	if wired(was) || wired(is) {
		c.messages(path, was, is)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] == nil {
			c.gone(path+"."+name, name, was, is)
			continue
		}
		c.within(path+"."+name, was[name], is[name])
	}
	if o.Schema["x-sealed"] != nil && n.Schema["x-sealed"] != nil {
		c.within(path+" (sealed)", o.Schema["x-sealed"], n.Schema["x-sealed"])
	}
}

func ref(s Schema) (string, bool) {
	if union, isUnion := s["anyOf"].([]any); isUnion && len(union) > 0 {
		s, _ = union[0].(Schema)
	}
	r, isRef := s["$ref"].(string)
	return r, isRef
}

// gone reports a field that is not there any more, and guesses why.
func (c *comparison) gone(path, name string, was, is Schema) {
	var renamed []string
	for other := range is {
		if was[other] == nil {
			renamed = append(renamed, other)
		}
	}
	slices.Sort(renamed)
	switch i := slices.IndexFunc(renamed, func(other string) bool { return strings.EqualFold(other, name) }); {
	case i >= 0:
		c.broken(path, "is now %s: tag the field `json:%q`, which is what the log has", renamed[i], name)
	case len(renamed) > 0:
		c.broken(path, "is gone, and stored data loses it; if it is now %s, tag that `json:%q`", strings.Join(renamed, " or "), name)
	default:
		c.broken(path, "is gone, and stored data loses it")
	}
}
