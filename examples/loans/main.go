// Loans runs the log of a real bank through the rules of package application: each line becomes a command on the application that it
// belongs to, and what was stored is counted at the end.
//
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz                    a SQLite file in a temporary folder
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -store loans.db    a SQLite file that stays; run it again and nothing changes
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -store mem:        in memory
//	go run ./examples/loans -log ../shared/data/bpic2012.xes.gz -store postgres://user@host/database
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
)

func main() {
	log.SetFlags(0)
	path := flag.String("log", "", "the log of the BPI Challenge 2012: an XES `file`, plain or packed with gzip")
	store := flag.String("store", "", open.Usage+" (default a SQLite file in a temporary folder)")
	atOnce := flag.Int("at-once", 256, "how many applications are worked on at the same time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *path, *store, *atOnce); err != nil {
		log.Fatal("loans: ", err)
	}
}

func run(ctx context.Context, path, where string, atOnce int) (err error) {
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
	store, closeStore, err := open.Log(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	fmt.Printf("The lines of %s become commands; their events are kept in %s.\n\n", path, shown(where))
	bar := progress(file)
	return replay(ctx, store, io.TeeReader(file, bar), bar, atOnce, os.Stdout)
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
	if err != nil || !term.IsTerminal(int(os.Stderr.Fd())) {
		return quiet{io.Discard}
	}
	return progressbar.NewOptions64(info.Size(),
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription("reading"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
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
