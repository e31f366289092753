package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress reports long work on standard error: with a bar on a terminal, and with a line from time to time elsewhere.
type progress struct {
	w     io.Writer
	what  string
	total int64
	done  int64
	said  time.Time
	bar   *progressbar.ProgressBar // nil if it is not a terminal
}

const (
	sayEvery = 10 * time.Second
	lookAt   = 1024 // steps between two looks at the clock
)

func newProgress(w io.Writer, what string, total int64) *progress {
	p := &progress{w: w, what: what, total: total, said: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	return p
}

// step counts one more step.
func (p *progress) step() {
	if p.done++; p.done%lookAt != 0 {
		return
	}
	if p.bar != nil {
		_ = p.bar.Set64(p.done) // an error of the bar is ignored
	} else if time.Since(p.said) > sayEvery {
		p.said = time.Now()
		fmt.Fprintf(p.w, "%s: %d of %d\n", p.what, p.done, p.total)
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
