package es_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestProseIsPlainEnglish reads the comments and string literals of every Go file, and every Markdown, SQL, YAML and shell file of the
// module and its Makefile. It finds words and phrases that the project does not use, and says what to write instead.
func TestProseIsPlainEnglish(t *testing.T) {
	used := make(map[proseException]bool)
	for _, passage := range modulePassages(t) {
		for _, find := range findProse(passage) {
			i := slices.IndexFunc(proseExceptions, func(e proseException) bool { return e.allows(find) })
			if i < 0 {
				t.Error(find)
				continue
			}
			used[proseExceptions[i]] = true
		}
	}
	for _, e := range proseExceptions {
		if !used[e] {
			t.Errorf("the exception for %q in %s is not needed any more: remove it from prose_test.go", e.word, e.path)
		}
	}
}

// proseRules are the words and phrases that the project does not use. Case does not matter, and a space matches any white space.
var proseRules = []struct{ pattern, instead string }{
	{`whoever|whomever|somebody|someone|nobody|anybody|everybody|those who`, `name the actor: "the caller", "another process", "no reader"`},
	{`he|him|his|himself|it is he`, `software is "it"; name the actor`},
	{`who (?:reads|writes|appends|listens|asks|comes|wants|has|is) (?:must|may|gets|for)`, `name the actor: "a reader that ..."`},
	{`(?:tell|say|show)s? whether`, `"reports whether"`},
	{`mend(?:s|ed|ing)?`, `"fix"`},
	{`for ever`, `"forever", "indefinitely" or "permanently"`},
	{`meanwhile`, `"in the meantime", or name the time: "during the read"`},
	{`likewise`, `"also" or "the same"`},
	{`as a rule|by turns|turn about|by and by`, `"usually", "alternately", "from time to time"`},
	{`reads? past`, `"skip"`},
	{`hears?|heard`, `"learn", "receive" or "notice"`},
	{`takes? leave|took leave|begs? leave`, `"leave" or "unregister"`},
	{`in vain`, `"wasted" or "without effect"`},
	{`bury|buries|buried`, `"delete"`},
	{`breath|strides?|stumbl\w*`, `the field's word: "pause", "fast path", "back off"`},
	{`(?:is|are|be|was|were) had`, `"is available"`},
	{`makes an error`, `"returns an error"`},
	{`asks? for it`, `"requests it" or "requires it"`},
	{`comes? to (?:its|an|the) end`, `"completes" or "ends"`},
	{`for want of`, `"without" or "because ... is missing"`},
	{`on (?:its|the|their) way`, `"in flight"`},
	{`under way`, `"in flight", "running" or "in progress"`},
	{`(?:that|which|it|this|these|version|topic|message|schema) (?:is|are) none`, `"is invalid", or "there is no ..."`},
	{`far as \w+ (?:has|have) come|how far .{0,20}(?:has|have) come|come (?:so|that) far`, `"progress" or "position"`},
	{`how .{0,30}stands?`, `"the state of ..."`},
	{`told (?:so|of)`, `"notified" or "reported"`},
	{`in order that`, `"so that"`},
	{`so long as`, `"as long as"`},
	{`lest|aught|befall\w*|befell|hitherto|whereupon|wherein|whereof|thereupon`, `a word of this century`},
	{`behind (?:[\w']+ ){1,3}backs?`, `"in the background"`},
	{`of no use|is no good`, `"does not help", "invalid" or "corrupt"`},
}

// proseExceptions are the places where a rule does not apply, each with its reason.
var proseExceptions = []proseException{
	{"internal/test/testserver/process_unix.go", "nobody", "it is the name of a user of the operating system"},
}

// A proseException allows a word in the files below a path.
type proseException struct{ path, word, reason string }

func (e proseException) allows(f proseFind) bool {
	return strings.HasPrefix(f.path, e.path) && (e.word == "" || strings.EqualFold(e.word, f.word))
}

// A prosePassage is text that a person reads. Its lines are those of the file from line on.
type prosePassage struct {
	path string
	line int
	text string
}

// A proseFind is a phrase that breaks a rule.
type proseFind struct {
	path          string
	line          int
	word, instead string
}

func (f proseFind) String() string {
	return fmt.Sprintf("%s:%d: %q: write %s", f.path, f.line, f.word, f.instead)
}

var prosePatterns = func() (patterns []*regexp.Regexp) {
	for _, rule := range proseRules {
		patterns = append(patterns, regexp.MustCompile(`(?is)\b(?:`+strings.ReplaceAll(rule.pattern, " ", `\s+`)+`)\b`))
	}
	return patterns
}()

func findProse(p prosePassage) (finds []proseFind) {
	for i, pattern := range prosePatterns {
		for _, at := range pattern.FindAllStringIndex(p.text, -1) {
			word := strings.Join(strings.Fields(p.text[at[0]:at[1]]), " ")
			finds = append(finds, proseFind{p.path, p.line + strings.Count(p.text[:at[0]], "\n"), word, proseRules[i].instead})
		}
	}
	return finds
}

func modulePassages(t *testing.T) (passages []prosePassage) {
	t.Helper()
	for _, suffix := range []string{".go", ".md", ".sql", ".yml", ".sh", "Makefile"} {
		files := moduleFiles(t, suffix)
		for _, path := range slices.Sorted(maps.Keys(files)) {
			if path != "prose_test.go" { // it lists the words
				passages = append(passages, passagesOf(t, path, files[path])...)
			}
		}
	}
	return passages
}

// passagesOf returns what a person reads in a file.
func passagesOf(t *testing.T, path, text string) []prosePassage {
	t.Helper()
	switch {
	case strings.HasSuffix(path, ".go"):
		return goPassages(t, path, text)
	case strings.HasSuffix(path, ".md"):
		return []prosePassage{{path, 1, withoutCode(text)}}
	}
	return []prosePassage{{path, 1, commentMark.ReplaceAllStringFunc(text, blank)}}
}

var (
	commentMark = regexp.MustCompile(`(?m)^[ \t]*(?://+|--+|#+|/\*)`)
	inlineCode  = regexp.MustCompile("`[^`\n]*`")
)

// blank returns spaces in place of a text, so that a phrase is found across two lines of a comment and keeps its place.
func blank(s string) string { return strings.Repeat(" ", len(s)) }

// goPassages returns the comments and the string literals of a Go file. Import paths and the tags of fields are left out.
func goPassages(t *testing.T, path, source string) (passages []prosePassage) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Comments {
		text := source[fset.Position(group.Pos()).Offset:fset.Position(group.End()).Offset]
		passages = append(passages, prosePassage{path, fset.Position(group.Pos()).Line, commentMark.ReplaceAllStringFunc(text, blank)})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			if n.Tag != nil {
				n.Tag = nil
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				text, _ := strconv.Unquote(n.Value)
				passages = append(passages, prosePassage{path, fset.Position(n.Pos()).Line, text})
			}
		}
		return true
	})
	return passages
}

// withoutCode blanks the blocks of code of a Markdown file, and code within a line: both belong to the files that they quote.
func withoutCode(text string) string {
	lines, fence := strings.Split(text, "\n"), ""
	for i, line := range lines {
		marks := line[:len(line)-len(strings.TrimLeft(line, "`"))]
		switch {
		case fence == "" && len(marks) >= 3:
			fence = marks
		case fence != "" && strings.TrimSpace(line) == fence:
			fence = ""
		case fence == "":
			lines[i] = inlineCode.ReplaceAllStringFunc(line, blank)
			continue
		}
		lines[i] = ""
	}
	return strings.Join(lines, "\n")
}

func TestProseCheckFinds(t *testing.T) {
	const nothing = ""
	for _, test := range []struct{ name, path, text, want string }{
		{"nothing in plain English", "p.go", "// Load returns the state.\npackage p\n\nconst s = \"fix the handler\"", nothing},
		{"a word in a comment", "p.go", "package p\n\n// Whoever reads must wait.\n", `p.go:3: "Whoever": write name the actor`},
		{"a word in a comment of a line", "p.go", "package p\n\nvar n int // nobody reads it", `p.go:3: "nobody"`},
		{"a word in a comment between stars", "p.go", "package p\n\n/* It is kept\nfor ever. */", `p.go:4: "for ever"`},
		{"a word in a string", "p.go", "package p\n\nconst s = \"mend the handler\"", `p.go:3: "mend"`},
		{"a word in a raw string", "p.go", "package p\n\nconst s = `a\nmeanwhile b`", `p.go:4: "meanwhile"`},
		{"a pronoun", "p.go", "package p\n\n// The worker loses his shard.\n", `p.go:3: "his"`},
		{"a phrase across two lines", "p.go", "package p\n\n// Match tells\n// whether it fits.\n", `p.go:3: "tells whether": write "reports whether"`},
		{"nothing in a name", "p.go", "package p\n\nvar nobody, meanwhile int", nothing},
		{"nothing in an import", "p.go", "package p\n\nimport _ \"example.com/nobody\"", nothing},
		{"nothing in a tag", "p.go", "package p\n\ntype t struct {\n\tN int `json:\"nobody\"`\n}", nothing},
		{"nothing in a part of a word", "p.go", "package p\n\n// The recommended history, amended.\n", nothing},
		{"a word in Markdown", "p.md", "# Title\n\nNobody\nreads it.", `p.md:3: "Nobody"`},
		{"nothing in a block of code", "p.md", "```go\nnobody()\n```\n", nothing},
		{"a word after a block of code", "p.md", "```go\nf()\n```\nmended", `p.md:4: "mended"`},
		{"nothing in code font", "p.md", "Call `nobody`.", nothing},
		{"a word in SQL", "p.sql", "-- Calls that are under\n-- way.\nselect 1;", `p.sql:1: "under way"`},
		{"a word in a Makefile", "Makefile", "# whoever\nall: ## for want of it", `Makefile:2: "for want of"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, passage := range passagesOf(t, test.path, test.text) {
				for _, find := range findProse(passage) {
					got = append(got, find.String())
				}
			}
			all := strings.Join(got, "\n")
			if !strings.Contains(all, test.want) || test.want == nothing && all != nothing {
				t.Errorf("%s\n\ngot:  %s\nwant: %s", test.text, all, cmp.Or(test.want, "nothing"))
			}
		})
	}
}

func TestEveryProseRuleFindsItsWords(t *testing.T) {
	for i, words := range []string{
		"somebody", "he", "who listens must", "tell whether", "mending", "for ever", "meanwhile", "likewise", "by turns", "reads past", "heard",
		"took leave", "in vain", "bury", "stumbles", "can be had", "makes an error", "asks for it", "comes to its end", "for want of",
		"on its way", "under way", "a version that is none", "how far it has come", "how it stands", "told of", "in order that", "so long as", "lest",
		"behind the caller's back", "of no use",
	} {
		if i >= len(prosePatterns) || !prosePatterns[i].MatchString("It "+words+" is.") {
			t.Errorf("rule %d does not find %q", i, words)
		}
	}
}
