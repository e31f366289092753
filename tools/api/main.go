// Command api prints the exported API of the main module, one declaration on each line, sorted. With a baseline it
// compares: a line that the baseline has and the module has not is an incompatible change.
//
//	api -module ..                           prints
//	api -module .. -baseline api.txt         compares, and fails after an incompatible change
//	api -module .. -baseline api.txt -write  records the baseline
//
// It reads the syntax only, so it needs no other module. A method that is added to an interface is a new line: whether
// users may implement the interface is for the reviewer to know. Doc comments of such interfaces say it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	module := flag.String("module", ".", "root folder of the module")
	baseline := flag.String("baseline", "", "file to compare with; if it does not exist, the API is printed")
	write := flag.Bool("write", false, "write the baseline instead of comparing with it")
	flag.Parse()
	if err := run(*module, *baseline, *write); err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

func run(module, baseline string, write bool) error {
	lines, err := declarations(module)
	if err != nil {
		return err
	}
	text := strings.Join(lines, "\n") + "\n"
	if write {
		return os.WriteFile(baseline, []byte(text), 0o644)
	}
	var recorded []byte
	if baseline != "" {
		if recorded, err = os.ReadFile(baseline); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if recorded == nil {
		fmt.Print(text)
		return nil
	}
	return compare(strings.Split(strings.TrimSpace(string(recorded)), "\n"), lines)
}

// compare prints the difference. Added lines are compatible changes, removed ones are not.
func compare(old, now []string) error {
	var removed int
	for _, line := range old {
		if !slices.Contains(now, line) {
			removed++
			fmt.Println("-", line)
		}
	}
	for _, line := range now {
		if !slices.Contains(old, line) {
			fmt.Println("+", line)
		}
	}
	if removed > 0 {
		return fmt.Errorf("%d declarations were removed or changed: run make api-record if this is intended", removed)
	}
	return nil
}

// declarations returns the exported declarations of every package that other modules can import.
func declarations(module string) ([]string, error) {
	var lines []string
	err := filepath.WalkDir(module, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		name := entry.Name()
		if path != module && (strings.HasPrefix(name, ".") || slices.Contains([]string{"internal", "testdata", "tools", "bench", "examples", "docs"}, name)) {
			return filepath.SkipDir
		}
		found, err := packageLines(module, path)
		lines = append(lines, found...)
		return err
	})
	slices.Sort(lines)
	return slices.Compact(lines), err
}

func packageLines(module, folder string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	at, err := filepath.Rel(module, folder)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if parsed.Name.Name == "main" {
			continue
		}
		p := writer{prefix: filepath.ToSlash(at) + ": ", set: set}
		for _, declaration := range parsed.Decls {
			p.declaration(declaration)
		}
		lines = append(lines, p.lines...)
	}
	return lines, nil
}

// A writer collects the lines of one file.
type writer struct {
	prefix string
	set    *token.FileSet
	lines  []string
}

func (w *writer) add(format string, args ...any) {
	w.lines = append(w.lines, w.prefix+fmt.Sprintf(format, args...))
}

// text prints a node on one line. Names of parameters and results are left out: to rename one breaks no caller.
func (w *writer) text(node ast.Node) string {
	ast.Inspect(node, func(n ast.Node) bool {
		if f, ok := n.(*ast.FuncType); ok {
			f.Params, f.Results = unnamed(f.Params), unnamed(f.Results)
		}
		return true
	})
	var b bytes.Buffer
	if err := printer.Fprint(&b, w.set, node); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func unnamed(list *ast.FieldList) *ast.FieldList {
	if list == nil {
		return nil
	}
	var fields []*ast.Field
	for _, field := range list.List {
		for range max(1, len(field.Names)) {
			fields = append(fields, &ast.Field{Type: field.Type})
		}
	}
	return &ast.FieldList{Opening: list.Opening, List: fields, Closing: list.Closing}
}

func (w *writer) declaration(d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() || d.Recv != nil && !exportedReceiver(d.Recv.List[0].Type) {
			return
		}
		d.Body, d.Doc = nil, nil
		w.add("%s", w.text(d))
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				w.typeSpec(spec)
			case *ast.ValueSpec:
				w.valueSpec(d.Tok, spec)
			}
		}
	}
}

func exportedReceiver(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.StarExpr:
		return exportedReceiver(e.X)
	case *ast.IndexExpr:
		return exportedReceiver(e.X)
	case *ast.IndexListExpr:
		return exportedReceiver(e.X)
	case *ast.Ident:
		return e.IsExported()
	}
	return false
}

func (w *writer) valueSpec(kind token.Token, spec *ast.ValueSpec) {
	for i, name := range spec.Names {
		if !name.IsExported() {
			continue
		}
		line := fmt.Sprintf("%s %s", kind, name)
		if spec.Type != nil {
			line += " " + w.text(spec.Type)
		}
		if kind == token.CONST && i < len(spec.Values) {
			line += " = " + w.text(spec.Values[i])
		}
		w.add("%s", line)
	}
}

func (w *writer) typeSpec(spec *ast.TypeSpec) {
	if !spec.Name.IsExported() {
		return
	}
	head := "type " + spec.Name.Name
	if spec.TypeParams != nil {
		var parameters []string
		for _, field := range spec.TypeParams.List {
			for _, name := range field.Names {
				parameters = append(parameters, name.Name+" "+w.text(field.Type))
			}
		}
		head += "[" + strings.Join(parameters, ", ") + "]"
	}
	switch t := spec.Type.(type) {
	case *ast.StructType:
		w.add("%s struct", head)
		w.fields(head+".", t.Fields)
	case *ast.InterfaceType:
		w.add("%s interface", head)
		w.fields(head+".", t.Methods)
	default:
		if spec.Assign.IsValid() {
			head += " ="
		}
		w.add("%s %s", head, w.text(spec.Type))
	}
}

func (w *writer) fields(head string, list *ast.FieldList) {
	for _, field := range list.List {
		kind := w.text(field.Type)
		if len(field.Names) == 0 {
			w.add("%s(embedded) %s", head, kind)
		}
		for _, name := range field.Names {
			if name.IsExported() {
				w.add("%s%s %s", head, name, kind)
			}
		}
	}
}
