package es_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// TestMarkdownIsTrue reads every Markdown file of the module. Go code must be in a file of the tree or compile, and commands, link targets
// and the tests that links name must exist. CONTRIBUTING.md explains how to write them.
func TestMarkdownIsTrue(t *testing.T) {
	tree := newMarkdownTree(t)
	for name, text := range moduleFiles(t, ".md") {
		t.Run(name, func(t *testing.T) {
			doc := parseMarkdown(text)
			t.Logf("%d blocks of code, %d links", len(doc.blocks), len(doc.links))
			for _, complaint := range tree.check(t, name, doc) {
				t.Error(complaint)
			}
		})
	}
}

func TestMarkdownCheckFinds(t *testing.T) {
	tree := newMarkdownTree(t)
	block := func(language, text string) string { return "```" + language + "\n" + text + "\n```\n" }
	for _, test := range []struct{ name, text, want string }{
		{"nothing in code of the tree", block("go", "func Head(ctx context.Context,\n    log Log) (Position, error) {"), ""},
		{"code of no file", block("go", "func Head(ctx context.Context, lock Log)"), `doc.md:1: no Go file has this code: es.go differs after "func Head(ctx context.Context,"`},
		{"nothing in code with a gap", block("go", "type Log interface {\n\tStore\n\t// ...\nfunc Head(ctx context.Context, log Log)"), ""},
		{"code with a gap in the wrong order", block("go", "func Head(ctx context.Context,\n// ...\ntype Log interface {\n"), "no Go file has this code"},
		{"nothing in a whole file", block("go", "package main\nimport \"github.com/thalo-go/es\"\nfunc main() { println(new(es.Mem)) }"), ""},
		{"a whole file that does not compile", block("go", "package main\nimport \"github.com/thalo-go/es\"\nfunc main() { println(es.Memory) }"), "undefined: es.Memory"},
		{"code of no language", block("", "func f()"), "doc.md:1: code without a language"},
		{"Go under another name", block("golang", "func f()"), `doc.md:1: code in "golang"`},
		{"code that is not closed", "```go\nfunc f()", "doc.md:1: the code is not closed"},
		{"nothing in a command", block("sh", "make test\ngo test ./...\ngo doc .\ngo run ./examples/bank/account -store ./none.db"), ""},
		{"a missing target", block("sh", "make coffee"), "doc.md:1: the Makefile has no target coffee"},
		{"a missing package", block("sh", "go run ./examples/none"), "doc.md:1: ./examples/none does not exist"},
		{"nothing in links", "[a](es.go) [b](es.go#L7) [c](https://example.com/none) [d](examples/bank) [e](#a-heading)\n\n[f]: es.go\n# A `heading`!\n", ""},
		{"a link to a missing file", "\nSee\n[a](none.go).", "doc.md:3: none.go does not exist"},
		{"a link out of the module", "[a](../none)", "../none is not in the module"},
		{"a reference to a missing file", "[a]: none.go", "none.go does not exist"},
		{"a missing picture", `<img src="none.png">`, "none.png does not exist"},
		{"a missing line", "[a](doc.go#L7000)", "doc.go has no #L7000"},
		{"a missing heading", "# Heading\n[a](#header)", "doc.md has no #header"},
		{"a link that cannot be parsed", "[a](a path.go)", "doc.md:1: 1 of 1 links cannot be parsed"},
		{"nothing in names that exist", "[`TestMarkdownCheckFinds`](markdown_test.go) [`es.Repo.Execute`](repo.go) [`repo.go`](repo.go)", ""},
		{"a missing test", "[`TestNone`](markdown_test.go)", "markdown_test.go has no TestNone"},
		{"nothing in a clause that exists", "[`TestMarkdownCheckFinds/a missing\nheading`](markdown_test.go)", ""},
		{"a missing clause", "[`TestMarkdownCheckFinds/no such clause`](markdown_test.go)", "markdown_test.go has no TestMarkdownCheckFinds/no such clause"},
		{"a clause of a missing test", "[`TestNone/a missing heading`](markdown_test.go)", "markdown_test.go has no TestNone/a missing heading"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(tree.check(t, "doc.md", parseMarkdown(test.text)), "\n")
			if !strings.Contains(got, test.want) || test.want == "" && got != "" {
				t.Errorf("%s\n\ngot:  %s\nwant: %s", test.text, got, test.want)
			}
		})
	}
}

// markdown is what can be checked in a Markdown file.
type markdown struct {
	blocks   []markdownBlock
	links    []markdownLink
	headings []string // as anchors
	broken   []string // what cannot be parsed
}

type markdownBlock struct {
	line           int
	language, code string
}

type markdownLink struct {
	line         int
	text, target string
}

var (
	// Each matches a text, empty if it does not matter, and a target.
	markdownLinks = []*regexp.Regexp{
		regexp.MustCompile("\\[(`[^`]+`|[^\\[\\]]*)\\]\\(([^()\\s]*)\\)"),
		regexp.MustCompile(`(?m)^\[()[^\]]+\]:\s+(\S+)`),
		regexp.MustCompile(`()(?:src|href)="([^"]*)"`),
	}
	markdownHeading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	notInAnchors    = regexp.MustCompile(`[^\pL\pN _-]`)
)

func parseMarkdown(text string) (m markdown) {
	lines := strings.Split(text, "\n")
	fence, block := "", markdownBlock{}
	for i, line := range lines {
		bare := strings.TrimSpace(line)
		marks := bare[:len(bare)-len(strings.TrimLeft(bare, "`"))]
		switch {
		case fence == "" && len(marks) < 3:
			continue // prose
		case fence == "":
			fence, block = marks, markdownBlock{line: i + 1, language: bare[len(marks):]}
		case bare == fence:
			m.blocks = append(m.blocks, block)
			fence = ""
		default:
			block.code += line + "\n"
		}
		lines[i] = "" // so that only prose remains
	}
	if fence != "" {
		m.broken = append(m.broken, fmt.Sprintf("%d: the code is not closed: add %s", block.line, fence))
	}
	prose := strings.Join(lines, "\n")
	for _, form := range markdownLinks {
		for _, at := range form.FindAllStringSubmatchIndex(prose, -1) {
			m.links = append(m.links, markdownLink{1 + strings.Count(prose[:at[0]], "\n"), prose[at[2]:at[3]], prose[at[4]:at[5]]})
		}
	}
	if n, read := strings.Count(prose, "]("), len(markdownLinks[0].FindAllString(prose, -1)); n != read {
		m.broken = append(m.broken, fmt.Sprintf("1: %d of %d links cannot be parsed: write [text](target) without brackets or spaces inside", n-read, n))
	}
	for _, heading := range markdownHeading.FindAllStringSubmatch(prose, -1) {
		m.headings = append(m.headings, strings.ReplaceAll(strings.ToLower(notInAnchors.ReplaceAllString(heading[1], "")), " ", "-"))
	}
	return m
}

// markdownTree is what Markdown may refer to.
type markdownTree struct {
	source   map[string]string // of Go files, by path
	words    map[string]string // the same, with white space reduced to single spaces
	makefile string
}

func newMarkdownTree(t *testing.T) *markdownTree {
	t.Helper()
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	tree := &markdownTree{moduleFiles(t, ".go"), make(map[string]string), string(makefile)}
	for name, source := range tree.source {
		tree.words[name] = spaced(source)
	}
	return tree
}

// spaced puts one space around each word, so that code matches whatever its white space, but not within a word.
func spaced(s string) string { return " " + strings.Join(strings.Fields(s), " ") + " " }

func (tree *markdownTree) check(t *testing.T, name string, doc markdown) (complaints []string) {
	t.Helper()
	complain := func(line int, complaint string) {
		if complaint != "" {
			complaints = append(complaints, fmt.Sprintf("%s:%d: %s", name, line, complaint))
		}
	}
	for _, broken := range doc.broken {
		complaints = append(complaints, name+":"+broken)
	}
	for _, block := range doc.blocks {
		complain(block.line, tree.checkBlock(t, block))
	}
	for _, link := range doc.links {
		complain(link.line, tree.checkLink(t, name, doc.headings, link))
	}
	return complaints
}

func (tree *markdownTree) checkBlock(t *testing.T, block markdownBlock) string {
	t.Helper()
	switch block.language {
	case "go":
		return tree.checkGo(t, block.code)
	case "sh":
		return tree.checkCommands(block.code)
	case "":
		return "code without a language: write one after the opening marks, or text"
	case "text", "sql", "yaml", "json", "markdown", "mermaid": // not checked
		return ""
	}
	return fmt.Sprintf("code in %q: write go or sh, or teach checkBlock of markdown_test.go the language", block.language)
}

// checkGo accepts code of a Go file, apart from white space and gaps marked "// ...", and otherwise a complete file that compiles.
func (tree *markdownTree) checkGo(t *testing.T, code string) string {
	t.Helper()
	nearest, common := "", ""
	for _, name := range slices.Sorted(maps.Keys(tree.words)) {
		rest, found := tree.words[name], true
		for piece := range strings.SplitSeq(spaced(code), " // ... ") {
			piece = spaced(piece)
			start := commonStart(rest, piece)
			if found = start == piece; !found {
				if len(start) > len(common) {
					nearest, common = name, start
				}
				break
			}
			rest = rest[strings.Index(rest, piece)+len(piece)-1:]
		}
		if found {
			return ""
		}
	}
	if strings.HasPrefix(spaced(code), " package ") {
		return vetFile(t, code)
	}
	return fmt.Sprintf("no Go file has this code: %s differs after %q; copy it from an Example, or write a complete file", nearest, strings.TrimSpace(common))
}

// commonStart returns the longest start of the code, in whole words, that the source has.
func commonStart(source, code string) string {
	ends := []int{0}
	for i := 1; i < len(code); i++ {
		if code[i] == ' ' {
			ends = append(ends, i+1)
		}
	}
	n := sort.Search(len(ends), func(i int) bool { return !strings.Contains(source, code[:ends[i]]) })
	return code[:ends[n-1]]
}

// vetFile compiles a file that imports the module.
func vetFile(t *testing.T, code string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "reader.go")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "vet", file).CombinedOutput(); err != nil {
		return fmt.Sprintf("this file does not compile: %v\n%s", err, out)
	}
	return ""
}

// checkCommands checks the targets of make and the packages of go commands. It ignores other commands.
func (tree *markdownTree) checkCommands(commands string) string {
	for line := range strings.Lines(commands) {
		command := strings.Fields(line)
		if len(command) < 2 {
			continue
		}
		switch command[0] {
		case "make":
			if !strings.Contains("\n"+tree.makefile, "\n"+command[1]+":") {
				return "the Makefile has no target " + command[1]
			}
		case "go":
			i := slices.IndexFunc(command, func(arg string) bool { return strings.HasPrefix(arg, "./") })
			if i < 0 {
				continue
			}
			if _, err := os.Stat(strings.TrimSuffix(command[i], "...")); err != nil {
				return command[i] + " does not exist"
			}
		}
	}
	return ""
}

func (tree *markdownTree) checkLink(t *testing.T, from string, headings []string, link markdownLink) string {
	t.Helper()
	if strings.Contains(link.target, ":") {
		return "" // another site: tests do not use the network
	}
	file, anchor, _ := strings.Cut(link.target, "#")
	name := from
	if file != "" {
		name = path.Join(path.Dir(from), file)
		if !filepath.IsLocal(name) {
			return file + " is not in the module"
		}
		content, err := os.ReadFile(name)
		if info, _ := os.Stat(name); info == nil || err != nil && !info.IsDir() {
			return name + " does not exist"
		}
		headings = parseMarkdown(string(content)).headings
		for i := range strings.Count(string(content), "\n") {
			headings = append(headings, "L"+strconv.Itoa(i+1))
		}
	}
	if anchor != "" && !slices.Contains(headings, anchor) {
		return name + " has no #" + anchor
	}
	if what, ok := strings.CutPrefix(link.text, "`"); ok && tree.source[name] != "" {
		what = strings.Join(strings.Fields(strings.TrimSuffix(what, "`")), " ")
		if !tree.has(t, name, what) {
			return fmt.Sprintf("%s has no %s: a link in code font to a Go file names something in it, such as TestName/clause", name, what)
		}
	}
	return ""
}

// has reports whether a Go file has what a link in code font names: a declaration (Name or Type.Method, with or without its package),
// a string such as the name of a subtest, or a test of its package with such a string. The path of the file is accepted too.
func (tree *markdownTree) has(t *testing.T, name, what string) bool {
	t.Helper()
	if strings.HasSuffix("/"+name, "/"+what) {
		return true
	}
	declared, literals := goNames(t, name, tree.source[name])
	test, clause, found := strings.Cut(what, "/")
	if !found {
		return slices.Contains(declared, what) || slices.Contains(literals, what)
	}
	for other, source := range tree.source {
		if path.Dir(other) == path.Dir(name) && slices.Contains(literals, clause) {
			if declared, _ := goNames(t, other, source); slices.Contains(declared, test) {
				return true
			}
		}
	}
	return false
}

// goNames returns the top-level declarations of a Go file, with and without the name of its package, and its strings.
func goNames(t *testing.T, name, source string) (declared, literals []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	declare := func(name string) {
		declared = append(declared, name, strings.TrimSuffix(file.Name.Name, "_test")+"."+name)
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			declare(receiver(decl) + decl.Name.Name)
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					declare(spec.Name.Name)
				case *ast.ValueSpec:
					declare(spec.Names[0].Name)
				}
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			s, _ := strconv.Unquote(literal.Value)
			literals = append(literals, s)
		}
		return true
	})
	return declared, literals
}
