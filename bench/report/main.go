// Report writes bench/RESULTS.md and its charts from the results of benchmarks and figures.
//
//	go run ./bench/report [-out folder] [-readme file] file...
//
// A file contains the output of go test -bench on package bench, or of bench/figures -json; "-" or no file is the
// standard input. If a benchmark ran several times, the medians are used. With -readme, three figures and a chart are
// written into the README too. make results measures everything and runs this program.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/thalo-go/es/bench/internal/result"
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader) error {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	out := flags.String("out", "bench", "the `folder` for RESULTS.md and the charts")
	readmeFile := flags.String("readme", "", "the `file` to write the main figures into")
	png := flags.Bool("png", false, "also write each chart as PNG, on white and on black")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var set result.Set
	files := flags.Args()
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, file := range files {
		if err := read(&set, file, in); err != nil {
			return err
		}
	}
	if len(set.Benchmarks) == 0 && len(set.Figures) == 0 {
		return errors.New("no results: give files with the output of go test -bench or bench/figures -json")
	}
	charts := chartsOf(&set)
	if err := os.MkdirAll(filepath.Join(*out, "charts"), 0o755); err != nil {
		return err
	}
	for _, c := range charts {
		if err := c.write(filepath.Join(*out, "charts"), *png); err != nil {
			return fmt.Errorf("chart %s: %w", c.name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(*out, "RESULTS.md"), []byte(markdown(&set, charts)), 0o644); err != nil || *readmeFile == "" {
		return err
	}
	return update(*readmeFile, func(text string) (string, error) { return readme(text, &set, charts) })
}

func update(file string, change func(text string) (string, error)) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := change(string(old))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

func read(set *result.Set, file string, in io.Reader) error {
	if file == "-" {
		return set.Read("standard input", in)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return set.Read(file, f)
}
