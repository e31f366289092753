// Package qualify makes the statements of PostgreSQL independent of the session's search_path.
//
// A name without a schema is looked up along search_path, and so is every operator. A role that may create functions in a schema
// of the path can therefore let a statement run its code with the rights of another role: by a function whose parameter types match
// better than those of the built-in one, or by a path that names its schema before pg_catalog. A statement whose names all have
// a schema cannot be redirected.
package qualify

import (
	"fmt"
	"strings"
)

// SQL returns a statement with each operator, function and type that has no schema qualified by pg_catalog. Tables keep their names, so
// they must have a schema already. A statement that was qualified before is returned as it is.
//
// It panics if it cannot make the statement safe, because texts are constants:
//   - IN, BETWEEN, NULLIF, LIKE, IS DISTINCT FROM, JOIN USING and CASE with an operand use operators that cannot be qualified.
//   - All qualified operators have the same precedence. An expression of two of them needs parentheses.
func SQL(text string) string {
	q := qualifier{text: text, levels: []level{{}}}
	for q.next() {
		q.take()
	}
	return q.out.String()
}

// Name returns a name in quotes, for SQL.
func Name(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

type qualifier struct {
	text   string
	pos    int // of what is not read yet
	out    strings.Builder
	levels []level // of parentheses and brackets, the innermost last

	token string
	kind  kind
	last  string // the token before
	was   kind   // and its kind
}

// A level is the inside of a pair of parentheses.
type level struct {
	call      string // the word before it
	operators int    // in the current expression
	set       bool   // in the assignments of an update
	target    bool   // before the = of an assignment
}

type kind int

const (
	space  kind = iota // or a comment
	word               // a keyword or name
	quoted             // a quoted name
	value              // a constant or parameter
	symbol             // an operator
	mark               // punctuation
)

const operatorRunes = "+-*/<>=~!@#%^&|`?"

// next reads a token.
func (q *qualifier) next() bool {
	if q.pos == len(q.text) {
		return false
	}
	rest := q.text[q.pos:]
	n := 1
	switch c := rest[0]; {
	case strings.HasPrefix(rest, "--"):
		q.kind, n = space, len(rest)
		if i := strings.IndexByte(rest, '\n'); i >= 0 {
			n = i
		}
	case strings.ContainsRune(" \t\n", rune(c)):
		q.kind = space
	case c == '\'' || c == '"':
		q.kind, n = value, quotedLength(rest, c)
		if c == '"' {
			q.kind = quoted
		}
	case isWord(c) || c == '$':
		for n < len(rest) && (isWord(rest[n]) || isDigit(rest[n])) {
			n++
		}
		q.kind = word
		if c == '$' {
			q.kind = value
		}
	case isDigit(c):
		for n < len(rest) && (isDigit(rest[n]) || rest[n] == '.') {
			n++
		}
		q.kind = value
	case strings.HasPrefix(rest, "::"):
		q.kind, n = mark, 2
	case strings.IndexByte(operatorRunes, c) >= 0:
		for n < len(rest) && strings.IndexByte(operatorRunes, rest[n]) >= 0 {
			n++
		}
		q.kind = symbol
	default:
		q.kind = mark
	}
	q.token = rest[:n]
	q.pos += n
	return true
}

func quotedLength(s string, quote byte) int {
	for i := 1; i < len(s); i++ {
		if s[i] != quote {
			continue
		}
		if i+1 == len(s) || s[i+1] != quote {
			return i + 1
		}
		i++
	}
	panic(fmt.Sprintf("qualify: %s has no end", s))
}

func isWord(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// top returns the innermost level.
func (q *qualifier) top() *level { return &q.levels[len(q.levels)-1] }

// take writes a token, qualified if needed.
func (q *qualifier) take() {
	if q.kind == space {
		q.out.WriteString(q.token)
		return
	}
	switch q.kind {
	case word:
		q.takeWord(strings.ToLower(q.token))
	case symbol:
		q.takeOperator()
	default:
		q.out.WriteString(q.token)
		q.takeMark()
	}
	q.last, q.was = q.token, q.kind
}

// takeMark follows parentheses and the assignments of an update.
func (q *qualifier) takeMark() {
	if q.kind != mark {
		return
	}
	switch l := q.top(); q.token {
	case "(", "[":
		call := ""
		if q.token == "(" && q.was == word {
			call = strings.ToLower(q.last)
		}
		q.levels = append(q.levels, level{call: call})
	case ")", "]":
		if len(q.levels) == 1 {
			panic("qualify: a parenthesis too many in " + q.text)
		}
		q.levels = q.levels[:len(q.levels)-1]
	case ",":
		l.operators, l.target = 0, l.set
	case ";":
		*l = level{}
	}
}

// unsafe are the constructs whose operators the server looks up along the path, without a way to qualify them.
var unsafe = map[string]bool{
	"in": true, "between": true, "nullif": true, "like": true, "ilike": true, "similar": true, "overlaps": true, "using": true, "natural": true,
}

// separators end an expression.
var separators = words("and or not when then else end where on set from select returning limit offset order group by case values is having join as")

// keywords are the words before a parenthesis that are not functions.
var keywords = words(`and or not exists any all some array select from where on conflict over as lateral row rows coalesce greatest least
	cast extract case when then else by returning values operator with insert into filter`)

// types are the names of types that the grammar knows, and so are not looked up.
var types = words("bigint integer smallint boolean real double numeric timestamp interval")

func words(list string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(list) {
		m[w] = true
	}
	return m
}

func (q *qualifier) takeWord(name string) {
	l := q.top()
	switch {
	case q.last == ".":
	case unsafe[name], name == "from" && strings.EqualFold(q.last, "distinct"):
		panic(fmt.Sprintf("qualify: %s cannot be made safe in %s", name, q.text))
	case strings.EqualFold(q.last, "case") && name != "when":
		panic(fmt.Sprintf("qualify: case with an operand cannot be made safe in %s", q.text))
	case q.last == "::", strings.EqualFold(q.last, "as") && l.call == "cast":
		if !types[name] && q.peek() != '.' {
			q.out.WriteString("pg_catalog.")
		}
	case name == "operator" && q.peek() == '(':
		q.takeQualifiedOperator()
		return
	case q.peek() == '(' && !keywords[name] && !strings.EqualFold(q.last, "as"):
		q.out.WriteString("pg_catalog.")
	}
	if q.last != "." && separators[name] {
		l.operators = 0
		l.set = name == "set" || l.set && name != "where" && name != "from" && name != "returning"
		l.target = name == "set"
	}
	q.out.WriteString(q.token)
}

// peek returns the next character that is no space, or 0.
func (q *qualifier) peek() byte {
	if rest := strings.TrimLeft(q.text[q.pos:], " \t\n"); rest != "" {
		return rest[0]
	}
	return 0
}

// takeQualifiedOperator copies an operator that is qualified already.
func (q *qualifier) takeQualifiedOperator() {
	n := strings.IndexByte(q.text[q.pos:], ')')
	if n < 0 {
		panic("qualify: an operator has no end in " + q.text)
	}
	q.out.WriteString(q.token + q.text[q.pos:q.pos+n+1])
	q.pos += n + 1
	q.kind = symbol
	q.count()
}

func (q *qualifier) takeOperator() {
	l := q.top()
	switch {
	case q.token == "=" && l.target:
		l.target = false
		q.out.WriteString(q.token)
		return
	case !q.operand() && (q.token == "*" || q.token == "-"): // all columns, or the sign of a constant
		q.out.WriteString(q.token)
		q.kind = mark
		return
	}
	q.out.WriteString("operator(pg_catalog." + q.token + ")")
	q.count()
}

// operand reports whether the token before ends an operand.
func (q *qualifier) operand() bool {
	switch q.was {
	case value, quoted:
		return true
	case word:
		return !separators[strings.ToLower(q.last)]
	}
	return q.last == ")" || q.last == "]"
}

func (q *qualifier) count() {
	if q.top().operators++; q.top().operators > 1 {
		panic(fmt.Sprintf("qualify: put parentheses around one of the operators before %.40q in %s", q.text[q.pos:], q.text))
	}
}
