package es_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryPackageAndExportedNameIsDocumented reads every package of the module, including internal ones. The comment on undocumented
// says what a doc comment must be. A main package needs a package comment only, because the rest cannot be imported.
func TestEveryPackageAndExportedNameIsDocumented(t *testing.T) {
	for dir, sources := range goPackages(t) {
		t.Run(dir, func(t *testing.T) {
			for _, complaint := range undocumented(t, sources) {
				t.Error(complaint)
			}
		})
	}
}

func TestUndocumentedFinds(t *testing.T) {
	const documented = "// Package p is.\npackage p\n"
	for _, test := range []struct{ name, source, want string }{
		{"a package without a comment", "package p", "package p has no comment"},
		{"a package comment that does not begin with Package", "// This is p.\npackage p", "package p has no comment"},
		{"a program without a comment", "package main", "package main has no comment"},
		{"nothing in a program with a comment", "// Bank shows.\npackage main\nfunc Run() {}", ""},
		{"a function", documented + "func F() {}", "F has no comment"},
		{"a comment that does not begin with the name", documented + "// Does it.\nfunc F() {}", "F has no comment"},
		{"a comment that begins with a longer name", documented + "// Fall does.\nfunc F() {}", "F has no comment"},
		{"nothing where an article comes first", documented + "// An F is.\ntype F int", ""},
		{"a type", documented + "type T int", "T has no comment"},
		{"a method", documented + "// T is.\ntype T int\nfunc (*T) M() {}", "M has no comment"},
		{"a method of a generic type", documented + "// T is.\ntype T[E any] int\nfunc (t *T[E]) M() {}", "M has no comment"},
		{"nothing at a method of an unexported type", documented + "type t int\nfunc (t) M() {}", ""},
		{"nothing at Error", documented + "// T is.\ntype T int\nfunc (T) Error() string { return \"\" }", ""},
		{"a method of an interface", documented + "// T is.\ntype T interface{ M() }", "M has no comment"},
		{"nothing at a method with a comment on its line", documented + "// T is.\ntype T interface {\n\tM() // is\n}", ""},
		{"a variable", documented + "var V int", "V has no comment"},
		{"a constant in a group", documented + "const (\n\t// C is.\n\tC = 1\n\tD = 2\n)", "D has no comment"},
		{"nothing in a group with a comment", documented + "// Limits.\nconst (\n\tC = 1\n\tD = 2\n)", ""},
		{"nothing in a group with a comment on each line", documented + "const (\n\tC = 1 // is\n\tD = 2 // is\n)", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(undocumented(t, map[string]string{"p.go": test.source}), "\n")
			if !strings.Contains(got, test.want) || test.want == "" && got != "" {
				t.Errorf("%s\n\ngot:  %s\nwant: %s", test.source, got, cmp.Or(test.want, "nothing"))
			}
		})
	}
}

// goPackages returns the source of every Go file of the module except tests and generated code, by directory and path.
func goPackages(t *testing.T) map[string]map[string]string {
	t.Helper()
	packages := make(map[string]map[string]string)
	for name, source := range moduleFiles(t, ".go") {
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go") {
			continue
		}
		dir := path.Dir(name)
		if packages[dir] == nil {
			packages[dir] = make(map[string]string)
		}
		packages[dir][name] = source
	}
	return packages
}

// moduleFiles returns the module's files whose names end in a suffix, by path. Like the go command, it skips hidden directories, testdata
// and other modules.
func moduleFiles(t *testing.T, suffix string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
		case entry.IsDir():
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if err == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" {
				return fs.SkipDir
			}
		case strings.HasSuffix(name, suffix):
			source, err := os.ReadFile(name)
			files[name] = string(source)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// undocumented lists the exported names of a package without a comment that begins with the name, after an optional article.
// A member of a group needs no comment if the group has one, or if there is one on the member's line.
func undocumented(t *testing.T, sources map[string]string) (complaints []string) {
	t.Helper()
	fset := token.NewFileSet()
	described, name := false, ""
	check := func(at *ast.Ident, comment string) {
		if at.IsExported() && !begins(comment, at.Name) {
			complaints = append(complaints, fmt.Sprintf("%s: %s has no comment that begins with %s", fset.Position(at.Pos()), at.Name, at.Name))
		}
	}
	for path, source := range sources {
		file, err := parser.ParseFile(fset, path, source, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		name = file.Name.Name
		described = described || begins(file.Doc.Text(), "Package "+name) || name == "main" && file.Doc != nil
		if name == "main" {
			continue
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if seen(decl) {
					check(decl.Name, decl.Doc.Text())
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					checkSpec(spec, decl, check)
				}
			}
		}
	}
	if !described {
		complaints = append(complaints, fmt.Sprintf("package %s has no comment that begins with its name", name))
	}
	slices.Sort(complaints)
	return complaints
}

func checkSpec(spec ast.Spec, decl *ast.GenDecl, check func(*ast.Ident, string)) {
	group := decl.Lparen.IsValid()
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		switch {
		case !group:
			check(spec.Name, decl.Doc.Text())
		case decl.Doc == nil:
			check(spec.Name, spec.Doc.Text())
		}
		if i, ok := spec.Type.(*ast.InterfaceType); ok && spec.Name.IsExported() {
			for _, method := range i.Methods.List {
				if len(method.Names) == 1 && method.Comment == nil {
					check(method.Names[0], method.Doc.Text())
				}
			}
		}
	case *ast.ValueSpec:
		switch {
		case !group:
			check(spec.Names[0], decl.Doc.Text())
		case decl.Doc == nil && spec.Comment == nil:
			check(spec.Names[0], spec.Doc.Text())
		}
	}
}

// seen reports whether other packages can call f. Error is not counted: the comment on its type is enough.
func seen(f *ast.FuncDecl) bool {
	typ := receiver(f)
	return f.Name.IsExported() && (typ == "" || ast.IsExported(typ) && f.Name.Name != "Error")
}

// receiver returns the type of a method, followed by a dot, or "" for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch generic := typ.(type) {
	case *ast.IndexExpr:
		typ = generic.X
	case *ast.IndexListExpr:
		typ = generic.X
	}
	return typ.(*ast.Ident).Name + "."
}

func begins(comment, name string) bool {
	return regexp.MustCompile(`^(A |An |The )?` + regexp.QuoteMeta(name) + `\b`).MatchString(comment)
}

// Two branches that take the same next number meet here.
func TestDecisionsAreNumberedAndListed(t *testing.T) {
	list, err := os.ReadFile("docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob("docs/decisions/0*.md")
	if err != nil || len(records) == 0 {
		t.Fatalf("%d records, error %v", len(records), err)
	}
	for i, file := range records {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		title, _, _ := strings.Cut(string(text), "\n")
		name := filepath.Base(file)
		if want := fmt.Sprintf("# %d. ", i+1); !strings.HasPrefix(title, want) || !strings.HasPrefix(name, fmt.Sprintf("%04d-", i+1)) {
			t.Errorf("%s begins with %q, want %04d in its name and %q in its title", file, title, i+1, want)
		}
		if entry := fmt.Sprintf("- [%s](%s)\n", strings.TrimPrefix(title, "# "), name); !strings.Contains(string(list), entry) {
			t.Errorf("docs/decisions/README.md lacks %q", entry)
		}
	}
}
