package postgres_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/thalo-go/es/internal/test/testserver"
)

// TestExamples runs the examples, which need a server, and compares their output with the comments at their ends.
func TestExamples(t *testing.T) {
	server := testserver.Postgres(t, testserver.Postgres18)
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string]func(){
		"ExampleOpen":                        ExampleOpen,
		"ExampleConfig":                      ExampleConfig,
		"ExampleConfig_inline":               ExampleConfig_inline,
		"ExampleStore_In":                    ExampleStore_In,
		"ExampleStore_Project":               ExampleStore_Project,
		"ExampleStore_WaitFor":               ExampleStore_WaitFor,
		"ExampleStore_Append_unknownOutcome": ExampleStore_Append_unknownOutcome,
		"ExampleStore_Append_unavailable":    ExampleStore_Append_unavailable,
	}
	if n := strings.Count(string(source), "\nfunc Example"); n != len(examples) {
		t.Errorf("example_test.go has %d examples, and %d are run", n, len(examples))
	}
	for name, example := range examples {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DATABASE_URL", server.Database(t))
			if got, want := output(t, example), expected(t, string(source), name); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

// output returns what a function prints.
func output(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r) // the other end is closed below
		text <- string(b)
	}()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	func() {
		defer w.Close()
		f()
	}()
	return <-text
}

// expected returns the lines after "Prints:" in an example.
func expected(t *testing.T, source, name string) string {
	t.Helper()
	_, body, found := strings.Cut(source, "func "+name+"() {")
	body, _, _ = strings.Cut(body, "\n}\n")
	_, lines, printed := strings.Cut(body, "\t// Prints:\n")
	if !found || !printed {
		t.Fatalf("%s has no comment of what it prints", name)
	}
	return strings.ReplaceAll(lines+"\n", "\t// ", "")
}
