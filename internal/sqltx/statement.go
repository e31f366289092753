package sqltx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/thalo-go/es"
)

// Dialect is what statements differ in.
type Dialect int

// The dialects.
const (
	Postgres Dialect = iota
	SQLite
)

// Statement is a text of a program that was checked.
type Statement struct {
	Text     string // with the placeholders of the driver
	Changes  bool   // whether it may insert, update or delete rows
	Reads    bool   // whether it is a query, and nothing else
	restores bool   // whether it rolls back to a savepoint
}

// Parse checks a text for a number of arguments. single refuses several statements in one text.
func Parse(d Dialect, text string, args int, single bool) (*Statement, error) {
	p := parser{dialect: d, rest: text}
	if d == SQLite {
		p.out = make([]byte, 0, len(text))
	}
	for p.err == nil && p.rest != "" {
		p.token()
	}
	p.end()
	switch highest := len(p.used); {
	case p.err != nil:
	case highest != args:
		p.err = fmt.Errorf("the statement has %d placeholders and %d arguments: give an argument for each", highest, args)
	case slices.Contains(p.used, false):
		p.err = fmt.Errorf("the statement does not use $%d: number the placeholders from $1 without a gap", slices.Index(p.used, false)+1)
	case p.statements > 1 && (args > 0 || single):
		p.err = fmt.Errorf("the text has %d statements: only Exec without arguments takes more than one", p.statements)
	}
	if p.err != nil {
		return nil, fmt.Errorf("%w: %w", es.ErrInvalid, p.err)
	}
	p.statement.Text = text
	if d == SQLite {
		if p.statements == 1 {
			p.out = p.out[:p.first] // the driver would run a comment behind it
		}
		p.statement.Text = string(p.out)
	}
	return &p.statement, nil
}

// parser reads the tokens of a text.
type parser struct {
	dialect    Dialect
	rest       string
	out        []byte   // of SQLite: what was read, with ?1 in place of $1
	words      []string // the first words of the statement, in lower case
	opaque     bool     // the statement has statements within it
	changes    bool     // the statement has a word that changes rows
	used       []bool   // the placeholders
	statements int
	first      int // the length of the first statement
	statement  Statement
	err        error
}

// firstWords is how many words of a statement say what it is.
const firstWords = 4

// take moves n bytes to what was read.
func (p *parser) take(n int) {
	if p.dialect == SQLite {
		p.out = append(p.out, p.rest[:n]...)
	}
	p.rest = p.rest[n:]
}

// token reads a token.
func (p *parser) token() {
	s := p.rest
	switch c := s[0]; {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
		p.take(1)
	case strings.HasPrefix(s, "--"):
		p.take(until(s, "\n", 2))
	case strings.HasPrefix(s, "/*"):
		p.take(p.comment(s))
	case c == '\'':
		p.word("'", quoted(s, '\'', false))
	case c == '"', p.dialect == SQLite && c == '`':
		p.word(`"`, quoted(s, c, false))
	case p.dialect == SQLite && c == '[':
		p.word(`"`, until(s, "]", 1))
	case c == '$' && len(s) > 1 && isDigit(s[1]):
		p.placeholder()
	case c == '$' && p.dialect == Postgres:
		p.word("'", dollarQuoted(s))
	case p.dialect == SQLite && (c == '$' || c == '?' || (c == ':' || c == '@') && len(s) > 1 && isWord(s[1])):
		p.err = fmt.Errorf("the statement has a placeholder %.8q: placeholders are $1, $2 and so on", s)
	case c == ';' && !p.opaque:
		p.end()
		p.take(1)
	case isWord(c):
		n := 1
		for n < len(s) && (isWord(s[n]) || isDigit(s[n]) || s[n] == '$') {
			n++
		}
		if p.dialect == Postgres && n == 1 && (c == 'e' || c == 'E') && len(s) > 1 && s[1] == '\'' {
			p.word("'", 1+quoted(s[1:], '\'', true))
			return
		}
		p.word(s[:n], n)
	case isDigit(c):
		n := 1
		for n < len(s) && (isDigit(s[n]) || isWord(s[n]) || s[n] == '.') {
			n++
		}
		p.word("0", n)
	default:
		p.word(s[:1], 1)
	}
}

// word notes a token and takes it.
func (p *parser) word(token string, n int) {
	p.take(n)
	token = strings.ToLower(token)
	if len(p.words) < firstWords {
		p.words = append(p.words, token)
	}
	switch token {
	case "insert", "update", "delete", "merge", "replace":
		p.changes = true
	case "trigger", "function", "procedure": // whose body may have statements
		p.opaque = p.opaque || p.words[0] == "create"
	}
}

// end ends a statement.
func (p *parser) end() {
	var w [firstWords]string
	copy(w[:], p.words)
	changes := p.changes
	p.words, p.opaque, p.changes = p.words[:0], false, false
	if p.err != nil || w[0] == "" {
		return
	}
	if p.statements++; p.statements == 1 {
		p.first = len(p.out)
	}
	p.statement.restores, p.statement.Reads = false, false
	switch w[0] {
	case "rollback":
		if w[1] == "to" || (w[1] == "work" || w[1] == "transaction") && w[2] == "to" {
			p.statement.restores = true
			return
		}
		p.err = errTransaction(w[0])
	case "commit", "end", "begin", "start", "abort":
		p.err = errTransaction(w[0])
	case "prepare":
		if w[1] == "transaction" {
			p.err = errTransaction(w[0])
		}
	case "insert", "update", "delete", "merge", "replace":
		p.statement.Changes = true
	case "with":
		p.statement.Changes = changes
		p.statement.Reads = !changes
	case "select", "values":
		p.statement.Reads = true
	}
}

func errTransaction(word string) error {
	return fmt.Errorf("only the store ends the transaction, so %s is refused: return nil to commit it, or an error", word)
}

// placeholder reads $1.
func (p *parser) placeholder() {
	n := 1
	for n < len(p.rest) && isDigit(p.rest[n]) {
		n++
	}
	number, err := strconv.Atoi(p.rest[1:n])
	if err != nil || number < 1 || number > maxPlaceholder {
		p.err = fmt.Errorf("the placeholder %.20s is not one of $1 to $%d", p.rest[:n], maxPlaceholder)
		return
	}
	for len(p.used) < number {
		p.used = append(p.used, false)
	}
	p.used[number-1] = true
	p.word("?", 0)
	if p.dialect == SQLite {
		p.out = strconv.AppendInt(append(p.out, '?'), int64(number), 10)
	}
	p.rest = p.rest[n:]
}

// maxPlaceholder is the highest that both databases have: SQLite's.
const maxPlaceholder = 32766

// comment returns the length of a comment. Those of Postgres may be nested.
func (p *parser) comment(s string) int {
	if p.dialect == SQLite {
		return until(s, "*/", 2)
	}
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// until returns the length up to and with an end that is searched for from a place.
func until(s, end string, from int) int {
	if i := strings.Index(s[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(s)
}

// quoted returns the length of what is between quotes. Two quotes within it are one.
func quoted(s string, quote byte, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] != quote:
		case i+1 < len(s) && s[i+1] == quote:
			i++
		default:
			return i + 1
		}
	}
	return len(s)
}

// dollarQuoted returns the length of a string such as $$ab$$ or $x$ab$x$.
func dollarQuoted(s string) int {
	n := 1
	for n < len(s) && (isWord(s[n]) || isDigit(s[n])) {
		n++
	}
	if n == len(s) || s[n] != '$' {
		return n
	}
	return until(s, s[:n+1], n+1)
}

func isWord(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// ParseQuery is [Parse] for a query outside a transaction, which must only read.
func ParseQuery(d Dialect, text string, args int) (*Statement, error) {
	s, err := Parse(d, text, args, true)
	if err == nil && !s.Reads {
		err = fmt.Errorf("%w: it is not a query that only reads: begin it with select, values or with, and write in a projection", es.ErrInvalid)
	}
	return s, err
}
