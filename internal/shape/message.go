package shape

import (
	"maps"
	"slices"
	"strings"
)

// wired reports whether properties are the fields of a protocol buffer, which are known by their numbers.
func wired(properties Schema) bool {
	for _, p := range properties {
		s, _ := p.(Schema)
		if s["x-protobuf"] != nil {
			return true
		}
	}
	return false
}

// wire returns the number and the kind of a field of a protocol buffer.
func wire(property any) (number, kind string) {
	s, _ := property.(Schema)
	text, _ := s["x-protobuf"].(string)
	number, kind, _ = strings.Cut(text, " ")
	return number, kind
}

// messages compares protocol buffers: the number and the kind of a field are permanent, and its name is not.
func (c *comparison) messages(path string, was, is Schema) {
	numbers := make(map[string]string)
	for name, property := range is {
		number, _ := wire(property)
		numbers[number] = name
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		number, kind := wire(was[name])
		now, found := numbers[number]
		if !found {
			c.broken(path+"."+name, "with number %s is gone, and stored data loses it", number)
			continue
		}
		_, nowKind := wire(is[now])
		switch kind + " " + nowKind {
		case "int32 int64", "uint32 uint64", "sint32 sint64", "string bytes":
			continue
		}
		if kind != nowKind {
			c.broken(path+"."+name, "with number %s was %s, is %s", number, kind, nowKind)
			continue
		}
		c.nested(path+"."+name, was[name], is[now])
	}
}

// nested compares the messages that fields contain.
func (c *comparison) nested(path string, old, now any) {
	o, _ := old.(Schema)
	n, _ := now.(Schema)
	for _, inside := range []string{"items", "additionalProperties"} {
		if o[inside] != nil && n[inside] != nil {
			o, _ = o[inside].(Schema)
			n, _ = n[inside].(Schema)
		}
	}
	if o["$ref"] != nil && n["$ref"] != nil {
		c.compare(path, o, n)
		return
	}
	if o["$comment"] != n["$comment"] {
		c.broken(path, "was %v, is %v", o["$comment"], n["$comment"])
	}
}
