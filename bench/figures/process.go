package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
)

// What other processes do, the program does itself, started again with one of these words.
const (
	writeWord = "measure-write" // url, number of the process, writers: appends for as long as each line on its input says, and answers with a count
	wakeWord  = "measure-wake"  // url: follows, and prints when it saw each position
)

// A process is this program at work with one of the words.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *strings.Builder
}

func startProcess(ctx context.Context, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, args...), stderr: new(strings.Builder)}
	p.cmd.Stderr = p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	_, err = p.line() // it says that it is ready
	return p, err
}

func (p *process) line() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args[1:2], " "), err, p.stderr)
	}
	return strings.TrimSpace(line), nil
}

// close ends the process by closing its input.
func (p *process) close() error {
	return errors.Join(p.in.Close(), p.cmd.Wait())
}

// measureWrite is what a writing process does.
func measureWrite(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: give url, number, writers", writeWord)
	}
	writers, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	store, err := postgres.Open(ctx, args[0])
	if err != nil {
		return err
	}
	defer store.Close()
	to := work.To(store)
	side := work.Appends("Append", func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		stream.ID += "-" + args[1] // processes do not meet on a stream
		return to(ctx, stream, after, events)
	}, writers, 1, payload)
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
		fmt.Fprintln(out, sample.Rate())
	}
	return nil
}

// pgProcesses measures four processes against one with as many writers.
func pgProcesses(ctx context.Context, s *session) (outcome, error) {
	var ratios, many, one []float64
	err := s.round(func(r *round) error {
		_, url, err := s.pgStore(ctx, r)
		if err != nil {
			return err
		}
		start := func(number, writers int) (*process, error) {
			p, err := startProcess(ctx, writeWord, url, strconv.Itoa(number), strconv.Itoa(writers))
			if err == nil {
				r.cleanup(p.close)
			}
			return p, err
		}
		var four []*process
		for n := range 4 {
			p, err := start(n, 64)
			if err != nil {
				return err
			}
			four = append(four, p)
		}
		alone, err := start(4, 256)
		if err != nil {
			return err
		}
		for i := range s.pairs*s.rounds + 1 {
			a, err := write(four, s.turn)
			if err != nil {
				return err
			}
			b, err := write([]*process{alone}, s.turn)
			if err != nil {
				return err
			}
			if i > 0 { // the first turn warms up
				ratios, many, one = append(ratios, a/b), append(many, a), append(one, b)
			}
		}
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return outcome{value: measure.Median(ratios), details: []string{
		fmt.Sprintf("four processes\t%.0f/s", measure.Median(many)), fmt.Sprintf("one process\t%.0f/s", measure.Median(one)),
	}}, nil
}

// write lets processes append for a while, and returns their rates together.
func write(processes []*process, turn time.Duration) (rate float64, err error) {
	for _, p := range processes {
		if _, err := fmt.Fprintln(p.in, turn); err != nil {
			return 0, err
		}
	}
	for _, p := range processes {
		line, err := p.line()
		if err != nil {
			return 0, err
		}
		own, err := strconv.ParseFloat(line, 64)
		if err != nil {
			return 0, err
		}
		rate += own
	}
	return rate, nil
}

// measureWake is what a following process does.
func measureWake(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: give url", wakeWord)
	}
	store, err := postgres.Open(ctx, args[0])
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in) // until it is closed
		cancel()
	}()
	fmt.Fprintln(out, "ready")
	for r, err := range es.Follow(ctx, store, 0, es.Filter{}) {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		fmt.Fprintln(out, r.Position, time.Now().UnixNano())
	}
	return nil
}

// delays appends one event at a time, with pauses in between, and returns how long after each acknowledgement the follower saw it.
func delays(ctx context.Context, store es.Store, follower *process, stream string, n int) ([]time.Duration, error) {
	var delays []time.Duration
	event := work.Events(1, payload)
	for v := range n {
		select {
		case <-time.After(20 * time.Millisecond): // so that each finds an idle system
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		position, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "wake", ID: stream}, Expected: es.Version(v), Events: event})
		if err != nil {
			return nil, err
		}
		acknowledged := time.Now().UnixNano()
		line, err := follower.line()
		if err != nil {
			return nil, err
		}
		var seen es.Position
		var at int64
		if _, err := fmt.Sscan(line, &seen, &at); err != nil {
			return nil, err
		}
		if seen != position {
			return nil, fmt.Errorf("the follower saw position %d, want %d", seen, position)
		}
		delays = append(delays, max(0, time.Duration(at-acknowledged)))
	}
	return delays[n/10:], nil // the first ones warm up: connections, LISTEN
}

func pgWake(percent float64) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (o outcome, err error) {
		err = s.round(func(r *round) error {
			store, url, err := s.pgStore(ctx, r)
			if err != nil {
				return err
			}
			follower, err := startProcess(ctx, wakeWord, url)
			if err != nil {
				return err
			}
			r.cleanup(follower.close)
			n := 500
			if s.rounds == 1 {
				n = 20
			}
			d, err := delays(ctx, store, follower, "a", n)
			if err != nil {
				return err
			}
			o.value = milliseconds(measure.Percentile(d, percent))
			o.details = []string{fmt.Sprintf("%d appends\tp50 %.3g ms\tp99 %.3g ms", len(d), milliseconds(measure.Percentile(d, 50)), milliseconds(measure.Percentile(d, 99)))}
			return nil
		})
		return o, err
	}
}

// pgStall compares the delays while a foreign transaction that has written is open with those without.
func pgStall(ctx context.Context, s *session) (o outcome, err error) {
	err = s.round(func(r *round) error {
		store, url, err := s.pgStore(ctx, r)
		if err != nil {
			return err
		}
		follower, err := startProcess(ctx, wakeWord, url)
		if err != nil {
			return err
		}
		r.cleanup(follower.close)
		foreign, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		r.cleanup(func() error { return foreign.Close(context.WithoutCancel(ctx)) })
		if _, err := foreign.Exec(ctx, "create table es.foreign_work (n bigint)"); err != nil {
			return err
		}
		n := 150 // of at least 20 ms each: the transaction stays open for more than three seconds, and all turns together for more than ten
		if s.rounds == 1 {
			n = 20
		}
		var with, without, ratios []float64
		for turn := range 2 * s.rounds {
			a, err := delays(ctx, store, follower, fmt.Sprint("free-", turn), n)
			if err != nil {
				return err
			}
			tx, err := foreign.Begin(ctx)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "insert into es.foreign_work values ($1)", turn); err != nil {
				return err
			}
			b, err := delays(ctx, store, follower, fmt.Sprint("stalled-", turn), n)
			if err = errors.Join(err, tx.Rollback(ctx)); err != nil {
				return err
			}
			free, stalled := milliseconds(measure.Percentile(a, 50)), milliseconds(measure.Percentile(b, 50))
			with, without, ratios = append(with, stalled), append(without, free), append(ratios, stalled/free)
		}
		slices.Sort(ratios)
		o.value = measure.Median(ratios)
		o.details = []string{fmt.Sprintf("p50 with it open %.3g ms, without %.3g ms", measure.Median(with), measure.Median(without))}
		return nil
	})
	return o, err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
