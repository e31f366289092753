// Figures measures the toolkit's performance figures against their goals. It prints a line for each: its name, the
// value, the goal, and "ok" or "short".
//
//	go run ./bench/figures [-short] [-v] [-strict] [-json file] [-dir folder] [name...]
//
// Without names it measures all figures. Most are ratios of the toolkit's rate to that of a baseline (see package
// baseline). The two run alternately on fresh databases, and the figure is the median of the ratios of neighbouring
// runs, so it holds on a machine with other load too. With -short the runs only show that the program works.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/result"
)

// table returns all figures in the order of measurement. Each backend adds its own.
func table() []figure {
	return slices.Concat(
		codecFigures(),
		sqliteFigures(),
		postgresFigures(),
		companyFigures(),
		projectionFigures(), documentFigures(), timerFigures(),
		tagFigures(),
		inlineFigures(),
		kafkaFigures(),
	)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case followWord:
			return measureFollow(ctx, args[1:], os.Stdout)
		case writeWord:
			return measureWrite(ctx, args[1:], os.Stdin, os.Stdout)
		case companyWord:
			return measureCompany(ctx, args[1:], os.Stdin, os.Stdout)
		case decideWord:
			return measureDecide(ctx, args[1:], os.Stdin, os.Stdout)
		case wakeWord:
			return measureWake(ctx, args[1:], os.Stdin, os.Stdout)
		}
	}
	return run(ctx, args, table(), os.Stdout)
}

var errShort = errors.New("a figure misses its goal")

func run(ctx context.Context, args []string, table []figure, out io.Writer) error {
	flags := flag.NewFlagSet("figures", flag.ContinueOnError)
	short := flags.Bool("short", false, "only check that measuring works, in seconds")
	verbose := flags.Bool("v", false, "also print what was compared, and the numbers behind the ratio")
	strict := flags.Bool("strict", false, "fail if a figure misses its goal")
	file := flags.String("json", "", "also write the figures to a `file`, for bench/report")
	dir := flags.String("dir", os.TempDir(), "the `folder` for the databases, on the disk to be measured")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: go run ./bench/figures [flags] [name...]\n\n")
		flags.PrintDefaults()
		fmt.Fprintf(flags.Output(), "\nnames: %s\n", strings.Join(names(table), " "))
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(table, flags.Args())
	if err != nil {
		return err
	}
	s := &session{effort: long, dir: *dir}
	defer s.close()
	if *short {
		s.effort = smoke
	}
	keep, done, err := keeper(*file)
	if err != nil {
		return err
	}
	defer done()
	machine, err := describeMachine(out, *dir)
	if err == nil {
		err = keep(result.Line{Machine: &machine})
	}
	if err != nil {
		return err
	}
	missed := 0
	for _, f := range chosen {
		o, err := f.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if !f.goal.metBy(o.value) {
			missed++
		}
		show(out, f, o, *verbose)
		r := f.result(o)
		if err := keep(result.Line{Figure: &r}); err != nil {
			return err
		}
	}
	if *strict && missed > 0 {
		return fmt.Errorf("%w: %d of %d", errShort, missed, len(chosen))
	}
	return nil
}

// choose returns the named figures in the order of the names, or all figures if there are no names.
func choose(table []figure, wanted []string) ([]figure, error) {
	if len(wanted) == 0 {
		return table, nil
	}
	var chosen []figure
	for _, name := range wanted {
		i := slices.IndexFunc(table, func(f figure) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown figure %q; known: %s", name, strings.Join(names(table), " "))
		}
		chosen = append(chosen, table[i])
	}
	return chosen, nil
}

func names(table []figure) []string {
	names := make([]string, len(table))
	for i, f := range table {
		names[i] = f.name
	}
	return names
}

// keeper returns a function that writes lines to a file, or does nothing without a file.
func keeper(file string) (keep func(result.Line) error, done func(), err error) {
	if file == "" {
		return func(result.Line) error { return nil }, func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, nil, err
	}
	lines := json.NewEncoder(f)
	return func(l result.Line) error { return lines.Encode(l) }, func() { _ = f.Close() }, nil // every line is already written
}

func describeMachine(out io.Writer, dir string) (result.Machine, error) {
	sync, err := measure.Sync(dir)
	if err != nil {
		return result.Machine{}, err
	}
	disk := ""
	if measure.InMemory(dir) {
		disk = "(in memory, so the results say nothing about a disk: set -dir)"
	}
	_, err = fmt.Fprintf(out, "# %s %s/%s, %d CPUs, %v to sync a page to %s%s\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), sync.Round(time.Microsecond), dir, disk)
	return result.Machine{
		CPU: measure.CPUModel(), CPUs: runtime.GOMAXPROCS(0), Memory: measure.Memory(), System: measure.System(),
		SyncMicros: float64(sync.Nanoseconds()) / 1000,
		Versions:   map[string]string{"go": runtime.Version()},
	}, err
}

func show(out io.Writer, f figure, o outcome, verbose bool) {
	verdict := "ok"
	if !f.goal.metBy(o.value) {
		verdict = "short"
	}
	fmt.Fprintf(out, "%-24s %9s   %-9s %s\n", f.name, f.goal.format(o.value), f.goal, verdict)
	if !verbose {
		return
	}
	fmt.Fprintf(out, "    %s\n", f.what)
	columns := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range o.details {
		fmt.Fprintf(columns, "    %s\n", line)
	}
	_ = columns.Flush() // the next line printed returns the same error
}
