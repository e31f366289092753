package child

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
)

// Write is a process that appends: as long as each line of its input says, which it answers with how many events it wrote and how long it took.
// Its name keeps its streams apart from those of other processes.
func Write(ctx context.Context, store es.Store, name string, writers, bytes int, in io.Reader, out io.Writer) error {
	to := work.To(store)
	side := work.Appends("Append", func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		stream.ID += "-" + name
		return to(ctx, stream, after, events)
	}, writers, 1, bytes)
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		turn, err := time.ParseDuration(lines.Text())
		if err != nil {
			return err
		}
		sample, err := side.For(ctx, turn)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, sample.Units, sample.Elapsed.Nanoseconds())
	}
	return nil
}

// Together lets processes that run [Write] append at the same time, and adds up what they did: their events, and the longest time.
func Together(processes []*Process, turn time.Duration) (sum measure.Sample, err error) {
	for _, p := range processes {
		if err := p.Send(turn.String()); err != nil {
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
			return sum, fmt.Errorf("a process that writes said %q: %w", line, err)
		}
		sum.Units += units
		sum.Elapsed = max(sum.Elapsed, time.Duration(elapsed))
	}
	return sum, nil
}
