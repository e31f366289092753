package postgres

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestStatementsAreQualified checks that each statement in the source passes through Store.text, which makes it independent of the
// search_path. Commands without names need not.
func TestStatementsAreQualified(t *testing.T) {
	nameless := []string{"begin ", "commit", "rollback", "select", "listen ", "set local ", "set client_encoding "}
	found := 0
	names, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		qualified := make(map[ast.Node]bool)
		ast.Inspect(file, func(n ast.Node) bool {
			call, is := n.(*ast.CallExpr)
			if !is {
				return true
			}
			if f, is := call.Fun.(*ast.SelectorExpr); is && (f.Sel.Name == "text" || f.Sel.Name == "newStatement") {
				ast.Inspect(call, func(n ast.Node) bool {
					qualified[n] = true
					return true
				})
			}
			return true
		})
		ast.Inspect(file, func(n ast.Node) bool {
			if c, is := n.(*ast.GenDecl); is && c.Tok == token.CONST || isImport(n) {
				return false // the test of a hostile path executes these
			}
			literal, is := n.(*ast.BasicLit)
			if !is || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			if !isStatement(text) {
				return true
			}
			found++
			safe := slices.ContainsFunc(nameless, func(s string) bool { return text == s || strings.HasSuffix(s, " ") && strings.HasPrefix(text, s) })
			if !safe && !qualified[n] {
				t.Errorf("%s: %.60q does not pass through Store.text", files.Position(n.Pos()), text)
			}
			return true
		})
	}
	if found < 30 {
		t.Errorf("found %d statements: the test looks for the wrong thing", found)
	}
}

func isImport(n ast.Node) bool {
	_, is := n.(*ast.ImportSpec)
	return is
}

func isStatement(text string) bool {
	word, rest, _ := strings.Cut(text, " ")
	return slices.Contains([]string{"select", "insert", "update", "delete", "with", "begin", "commit", "rollback", "listen", "set"}, word) &&
		(rest != "" || word == "commit" || word == "rollback" || word == "select")
}
