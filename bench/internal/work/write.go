package work

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
)

// Serve is the task of a child process that appends. Each line of its input is a duration for which it appends. It answers each line with
// the number of events and the time. The name makes its streams different from those of other processes.
func Serve(ctx context.Context, store es.Store, name string, writers, bytes int, in io.Reader, out io.Writer) error {
	to := To(store)
	side := Appends("Append", func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		stream.ID += "-" + name
		return to(ctx, stream, after, events)
	}, writers, 1, bytes)
	return Answer(ctx, side, in, out)
}

// Answer is Serve with any operation.
func Answer(ctx context.Context, side measure.Side, in io.Reader, out io.Writer) error {
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		length, err := time.ParseDuration(lines.Text())
		if err != nil {
			return err
		}
		sample, err := side.For(ctx, length)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, sample.Units, sample.Elapsed.Nanoseconds())
	}
	return nil
}

// Together makes processes that run [Serve] or [Answer] work at the same time. It returns the total of their events and the longest time.
func Together(processes []*Process, length time.Duration) (sum measure.Sample, err error) {
	for _, p := range processes {
		if err := p.Send(length.String()); err != nil {
			return sum, err
		}
	}
	for _, p := range processes {
		line, err := p.Line()
		if err != nil {
			return sum, err
		}
		var units int
		var elapsed int64
		if _, err := fmt.Sscan(line, &units, &elapsed); err != nil {
			return sum, fmt.Errorf("unexpected answer %q of a writing process: %w", line, err)
		}
		sum.Units += units
		sum.Elapsed = max(sum.Elapsed, time.Duration(elapsed))
	}
	return sum, nil
}
