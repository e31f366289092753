// Loans runs the log of a real bank through the rules of package application: each line becomes a command on the application that it
// belongs to, and what was stored is counted at the end.
//
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz                    a SQLite file in a temporary folder
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -store loans.db    a SQLite file that stays; run it again and nothing changes
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -store mem:        in memory
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -store postgres://user@host/database
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -chart funnel.svg  and draw how many applications came how far
//
// The log is that of the BPI Challenge 2012, by B. F. van Dongen, doi:10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/internal/open"
	"github.com/thalo-go/es/projection"
)

func main() {
	log.SetFlags(0)
	path := flag.String("log", "", "the log of the BPI Challenge 2012: an XES `file`, plain or packed with gzip")
	store := flag.String("store", "", open.Usage+" (default a SQLite file in a temporary folder)")
	atOnce := flag.Int("at-once", 256, "how many applications are worked on at the same time")
	chart := flag.String("chart", "", "draw how many applications came how far, into a `file`: .svg, .png or .pdf")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *path, *store, *atOnce, *chart); err != nil {
		log.Fatal("loans: ", err)
	}
}

func run(ctx context.Context, path, where string, atOnce int, chart string) (err error) {
	file, err := openLog(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if atOnce < 1 {
		return fmt.Errorf("-at-once %d: give 1 or more", atOnce)
	}
	if where == "" {
		dir, err := os.MkdirTemp("", "loans")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		where = filepath.Join(dir, "loans.db")
	}
	store, read, closeStore, err := open.Store(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	fmt.Printf("The lines of %s become commands; their events are kept in %s.\n\n", path, shown(where))
	bar := progress(file)
	if err := replay(ctx, store, io.TeeReader(file, bar), bar, atOnce, os.Stdout); err != nil {
		return err
	}
	return showFunnel(ctx, read, chart, os.Stdout)
}

// showFunnel builds the read model of the funnel, with a progress bar for people, and prints and draws it.
func showFunnel(ctx context.Context, read open.ReadSide, chart string, out io.Writer) error {
	bar := newBar(-1, "projecting")
	if err := buildFunnel(ctx, read, func(p projection.Progress) {
		bar.ChangeMax64(int64(p.End))
		_ = bar.Set64(int64(p.Cursor)) // a bar that cannot be drawn is no harm
	}); err != nil {
		return err
	}
	_ = bar.Finish()
	f, err := askFunnel(ctx, read)
	if err != nil {
		return err
	}
	w := &report{w: out}
	w.funnel(f)
	if chart != "" && w.err == nil {
		if w.err = draw(f, chart); w.err == nil {
			w.printf("\nThe chart is in %s.\n", chart)
		}
	}
	return w.err
}

// shown is the store as it may be printed: what stands for a user in a URL may have a password in it.
func shown(where string) string {
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return where
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

// openLog opens the file, or says how to get it.
func openLog(path string) (*os.File, error) {
	const remedy = "get the log of the BPI Challenge 2012 (doi:10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f) and name it, as in -log ../shared/data/bpic2012.xes.gz"
	if path == "" {
		return nil, errors.New("no log is given: " + remedy)
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s: %s", path, remedy)
	}
	return file, err
}

// progress returns a bar that counts the bytes of the file written to it, for people only.
func progress(file *os.File) io.WriteCloser {
	info, err := file.Stat()
	if err != nil {
		return quiet{io.Discard}
	}
	return newBar(info.Size(), "reading", progressbar.OptionShowBytes(true))
}

// newBar returns a progress bar, which is drawn for people only.
func newBar(most int64, what string, options ...progressbar.Option) *progressbar.ProgressBar {
	return progressbar.NewOptions64(most, append(options,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetVisibility(term.IsTerminal(int(os.Stderr.Fd()))),
		progressbar.OptionSetDescription(what),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)...)
}

type quiet struct{ io.Writer }

func (quiet) Close() error { return nil }

// replay loads a file into a store and writes a report. Of a file that breaks off, what came before is in the store and in the report.
func replay(ctx context.Context, store es.Log, file io.Reader, bar io.Closer, atOnce int, out io.Writer) error {
	start := time.Now()
	l, err := load(ctx, store, file, atOnce)
	took := time.Since(start)
	_ = bar.Close()
	if l == nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("stopped after %s lines: %w", number(l.stored.Load()+l.before.Load()), err)
	}
	t, failed := count(ctx, store)
	if failed != nil {
		return errors.Join(err, failed)
	}
	w := &report{w: out}
	w.load(l, took, atOnce)
	w.tally(t)
	return errors.Join(err, w.err)
}
