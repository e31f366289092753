// Package tag has what stores share about the tags of records.
package tag

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// Set returns a copy of tags, or of other names, sorted and without duplicates, or nil if there are none.
func Set(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	set := slices.Clone(tags)
	slices.Sort(set)
	return slices.Clip(slices.Compact(set))
}

// Hash returns the number by which stores index a tag: the first eight bytes of its SHA-256. It is stored, so it never changes.
func Hash(tag string) int64 {
	sum := sha256.Sum256([]byte(tag))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// separator is before and after each tag in a joined text.
const separator = "\x1f"

var (
	escape   = strings.NewReplacer(`\`, `\\`, separator, `\s`)
	unescape = strings.NewReplacer(`\\`, `\`, `\s`, separator)
	literal  = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
)

// Join returns the text in which stores keep a set of tags. It is empty for an empty set. It contains the [Term] of a tag if and only if the
// set has the tag, so a database can compare tags by searching the text.
func Join(set []string) string {
	var text strings.Builder
	for _, tag := range set {
		text.WriteString(Term(tag))
	}
	return text.String()
}

// Term returns what a joined text contains if it has a tag.
func Term(tag string) string {
	if strings.ContainsAny(tag, `\`+separator) {
		tag = escape.Replace(tag)
	}
	return separator + tag + separator
}

// Pattern returns the pattern of the operator LIKE that a joined text matches if it has all tags of a set.
func Pattern(set []string) string {
	var text strings.Builder
	text.WriteString("%")
	for _, tag := range set {
		text.WriteString(literal.Replace(Term(tag)) + "%")
	}
	return text.String()
}

// Split returns the set of a joined text, or nil if it is empty.
func Split(text string) []string {
	if text == "" {
		return nil
	}
	set := strings.Split(strings.Trim(text, separator), separator+separator)
	if strings.Contains(text, `\`) {
		for i := range set {
			set[i] = unescape.Replace(set[i])
		}
	}
	return set
}
