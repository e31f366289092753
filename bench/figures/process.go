package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/postgres"
)

// Other processes are this program, started again with one of these words as first argument.
const (
	writeWord = "measure-write" // URL, number of the process, writers: see work.Serve
	wakeWord  = "measure-wake"  // URL: follows the log and prints when it saw each position
)

// measureWrite is the task of a writing process.
func measureWrite(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: %s URL NUMBER WRITERS", writeWord)
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
	return work.Serve(ctx, store, args[1], writers, payload, in, out)
}

// pgProcesses compares four processes with one that has as many writers.
func pgProcesses(ctx context.Context, s *session) (outcome, error) {
	var ratios, many, one []float64
	err := s.round(func(r *round) error {
		_, url, err := s.pgStore(ctx, r)
		if err != nil {
			return err
		}
		start := func(number, writers int) (*work.Process, error) {
			p, err := work.StartProcess(ctx, writeWord, url, strconv.Itoa(number), strconv.Itoa(writers))
			if err == nil {
				r.cleanup(p.Close)
			}
			return p, err
		}
		var four []*work.Process
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
			a, err := work.Together(four, s.turn)
			if err != nil {
				return err
			}
			b, err := work.Together([]*work.Process{alone}, s.turn)
			if err != nil {
				return err
			}
			if i > 0 { // the first run warms up
				ratios, many, one = append(ratios, a.Rate()/b.Rate()), append(many, a.Rate()), append(one, b.Rate())
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

// measureWake is the task of a following process.
func measureWake(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: %s URL", wakeWord)
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

// delays appends one event at a time, with pauses, and returns the delays from each acknowledgement to the follower.
func delays(ctx context.Context, store es.Store, follower *work.Process, stream string, n int) ([]time.Duration, error) {
	var delays []time.Duration
	event := work.Events(1, payload)
	for v := range n {
		select {
		case <-time.After(20 * time.Millisecond): // so that the system is idle before each append
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		position, err := store.Append(ctx, es.Append{Stream: es.Stream{Kind: "wake", ID: stream}, Expected: es.Version(v), Events: event})
		if err != nil {
			return nil, err
		}
		acknowledged := time.Now().UnixNano()
		line, err := follower.Line()
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
			follower, err := work.StartProcess(ctx, wakeWord, url)
			if err != nil {
				return err
			}
			r.cleanup(follower.Close)
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

// pgStall compares the delays with and without an open transaction of another client that has written.
func pgStall(ctx context.Context, s *session) (o outcome, err error) {
	err = s.round(func(r *round) error {
		store, url, err := s.pgStore(ctx, r)
		if err != nil {
			return err
		}
		follower, err := work.StartProcess(ctx, wakeWord, url)
		if err != nil {
			return err
		}
		r.cleanup(follower.Close)
		foreign, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		r.cleanup(func() error { return foreign.Close(context.WithoutCancel(ctx)) })
		if _, err := foreign.Exec(ctx, "create table es.foreign_work (n bigint)"); err != nil {
			return err
		}
		n := 150 // at least 20 ms each: the transaction stays open for over 3 s, and all runs together take over 10 s
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
		o.details = []string{fmt.Sprintf("p50 with the transaction %.3g ms, without %.3g ms", measure.Median(with), measure.Median(without))}
		return nil
	})
	return o, err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
