// Loans replays the event log of a bank through the rules of package application. Each line becomes a command on a loan application.
// At the end it reports what is stored.
//
//	go run ./examples/loans                          the synthetic log beside this file, in a temporary SQLite file
//	go run ./examples/loans -log bpic2012.xes.gz     a real log, see below
//	go run ./examples/loans -store loans.db          a SQLite file that stays; a second run changes nothing
//	go run ./examples/loans -store mem:              in memory
//	go run ./examples/loans -store postgres://user@host/database
//	go run ./examples/loans -chart funnel.svg        draw how many applications reached each stage
//
// The synthetic log has sixty made-up applications. The real one, of a Dutch bank, has 13,087 applications with 262,200 events. It is the log of the
// BPI Challenge 2012, by B. F. van Dongen. Download it from https://doi.org/10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/projection"
	"github.com/thalo-go/es/stores"
)

func main() {
	log.SetFlags(0)
	path := flag.String("log", "", "the log of the BPI Challenge 2012: an XES `file`, plain or gzip (default a small synthetic log)")
	store := flag.String("store", "", stores.Usage+" (default a SQLite file in a temporary folder)")
	atOnce := flag.Int("at-once", 256, "how many applications to process concurrently")
	chart := flag.String("chart", "", "draw how many applications reached each stage into a `file`: .svg, .png or .pdf")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *path, *store, *atOnce, *chart); err != nil {
		log.Fatal("loans: ", err)
	}
}

func run(ctx context.Context, path, where string, atOnce int, chart string) (err error) {
	file, size, err := openLog(path)
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
	store, err := stores.Config{Logger: slog.Default()}.Open(ctx, where) // it says what it waits for
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	name := path
	if name == "" {
		name = "the synthetic log (give a real one with -log)"
	}
	fmt.Printf("Replaying %s. The events are stored in %s.\n\n", name, withoutPassword(where))
	bar := newBar(size, "reading", progressbar.OptionShowBytes(true))
	if err := replay(ctx, store, io.TeeReader(file, bar), bar, atOnce, os.Stdout); err != nil {
		return err
	}
	return showFunnel(ctx, store, chart, os.Stdout)
}

// showFunnel brings the read model of the funnel up to date, prints it, and draws it if chart names a file.
func showFunnel(ctx context.Context, store projection.Database, chart string, out io.Writer) error {
	bar := newBar(-1, "projecting")
	if err := buildFunnel(ctx, store, nil, func(p projection.Progress) {
		bar.ChangeMax64(int64(p.End))
		_ = bar.Set64(int64(p.Cursor)) // not worth an error
	}); err != nil {
		return err
	}
	_ = bar.Finish()
	f, err := queryFunnel(ctx, store)
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

// withoutPassword removes the parts of a URL that may contain a password.
func withoutPassword(where string) string {
	u, err := url.Parse(where)
	if err != nil || u.Host == "" {
		return where
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

//go:embed synthetic.xes
var synthetic []byte

// openLog opens a log file and returns its size, -1 if it is unknown. If path is empty, it returns the synthetic log.
func openLog(path string) (file io.ReadCloser, size int64, err error) {
	if path == "" {
		return io.NopCloser(bytes.NewReader(synthetic)), int64(len(synthetic)), nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("-log %s: no such file: download it from https://doi.org/10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f", path)
	}
	if err != nil {
		return nil, 0, err
	}
	size = -1
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	return f, size, nil
}

// newBar returns a progress bar. It is drawn only if the standard error is a terminal.
func newBar(most int64, what string, options ...progressbar.Option) *progressbar.ProgressBar {
	return progressbar.NewOptions64(most, append(options,
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetVisibility(term.IsTerminal(int(os.Stderr.Fd()))),
		progressbar.OptionSetDescription(what),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)...)
}

// replay loads a file into a store and writes a report. If the file is damaged, both contain what came before the damage.
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
