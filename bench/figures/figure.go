package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/result"
	"github.com/thalo-go/es/bench/internal/server"
)

// A figure is one performance number with a goal.
type figure struct {
	name    string
	what    string // what is measured and what it is compared with
	goal    goal
	measure func(ctx context.Context, s *session) (outcome, error)
}

// A goal is a bound on a figure.
type goal struct {
	bound float64
	most  bool // the bound is an upper one
	unit  string
}

func atLeast(ratio float64) goal             { return goal{bound: ratio} }
func atMost(bound float64, unit string) goal { return goal{bound: bound, most: true, unit: unit} }

// metBy reports whether a value reaches the goal. NaN does not.
func (g goal) metBy(value float64) bool {
	if g.most {
		return value <= g.bound
	}
	return value >= g.bound
}

// String prints the goal as ≥ 5 or ≤ 30 MB.
func (g goal) String() string {
	sign := "≥"
	if g.most {
		sign = "≤"
	}
	bound := strconv.FormatFloat(g.bound, 'g', -1, 64)
	if g.unit != "" {
		bound += " " + g.unit
	}
	return sign + " " + bound
}

// format formats a value with three significant digits and its unit.
func (g goal) format(value float64) string {
	digits := 2
	if value >= 100 {
		digits = 0
	} else if value >= 10 {
		digits = 1
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if g.unit != "" {
		text += " " + g.unit
	}
	return text
}

// result returns the figure and its value for other programs.
func (f figure) result(o outcome) result.Figure {
	return result.Figure{
		Name: f.name, What: f.what, Value: o.value, Text: f.goal.format(o.value), Goal: f.goal.String(), Bound: f.goal.bound, Most: f.goal.most,
		OK: f.goal.metBy(o.value), Details: o.details,
	}
}

// An outcome is the measured value of a figure.
type outcome struct {
	value   float64
	details []string // lines for -v; tabs align columns
}

// An effort is how much is measured.
type effort struct {
	rounds  int           // number of rounds, each on fresh databases
	pairs   int           // pairs of runs in a round
	turn    time.Duration // length of a run of one side
	warmUp  time.Duration // length of the warm-up of each side in each round
	records int           // records in a long log
}

var (
	long  = effort{rounds: 3, pairs: 6, turn: 400 * time.Millisecond, warmUp: 200 * time.Millisecond, records: 1_000_000}
	smoke = effort{rounds: 1, pairs: 1, turn: 20 * time.Millisecond, warmUp: 5 * time.Millisecond, records: 20_000}
)

// A session is one run of the program.
type session struct {
	effort
	dir    string
	server *server.Postgres // nil until a figure needs it
	slow   *server.Postgres // with a slower disk; nil until a figure needs it
	kafka  *server.Kafka    // nil until a figure needs it
}

// close stops the servers that were started.
func (s *session) close() {
	if s.kafka != nil {
		_ = s.kafka.Close() // nil until a figure needs it
	}
	if s.slow != nil {
		_ = s.slow.Close()
	}
	if s.server != nil {
		_ = s.server.Close() // its data is discarded, and its process ends with this one at the latest
	}
}

// A round is a series of runs on fresh databases.
type round struct {
	session  *session
	dir      string // initially empty
	cleanups []func() error
}

// cleanup registers a function to call at the end of the round, in reverse order.
func (r *round) cleanup(f func() error) { r.cleanups = append(r.cleanups, f) }

// round calls a function with a fresh folder and cleans up.
func (s *session) round(do func(r *round) error) (err error) {
	dir, err := os.MkdirTemp(s.dir, "figures")
	if err != nil {
		return err
	}
	r := &round{session: s, dir: dir}
	defer func() {
		for _, f := range slices.Backward(r.cleanups) {
			err = errors.Join(err, f())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	return do(r)
}

// A setUp prepares the two sides of a round: ours is the toolkit, theirs the baseline.
type setUp func(ctx context.Context, r *round) (ours, theirs measure.Side, err error)

// rates measures the ratio of our rate to theirs.
func rates(set setUp) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (outcome, error) {
		pairs, err := s.compare(ctx, set)
		return pairs.outcome(pairs.Ratio()), err
	}
}

// times measures the ratio of our time to theirs.
func times(set setUp) func(context.Context, *session) (outcome, error) {
	return func(ctx context.Context, s *session) (outcome, error) {
		pairs, err := s.compare(ctx, set)
		return pairs.outcome(1 / pairs.Ratio()), err
	}
}

// A comparison has the runs of all rounds.
type comparison struct {
	measure.Pairs
	ours, theirs string // names
}

func (s *session) compare(ctx context.Context, set setUp) (comparison, error) {
	var c comparison
	for range s.rounds {
		err := s.round(func(r *round) error {
			ours, theirs, err := set(ctx, r)
			if err != nil {
				return err
			}
			c.ours, c.theirs = ours.Name, theirs.Name
			for _, side := range []measure.Side{ours, theirs} {
				if _, err := side.For(ctx, s.warmUp); err != nil {
					return err
				}
			}
			return c.InTurns(ctx, s.pairs, s.turn, ours, theirs)
		})
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c comparison) outcome(value float64) outcome {
	line := func(name string, samples []measure.Sample) string {
		all := measure.Together(samples)
		return fmt.Sprintf("%s\t%.0f/s\tp50 %.3g ms\tp99 %.3g ms", name, all.Rate(), ms(all, 50), ms(all, 99))
	}
	ratios := c.Ratios()
	slices.Sort(ratios)
	o := outcome{value: value}
	if len(ratios) > 0 {
		o.details = []string{
			line(c.ours, c.A),
			line(c.theirs, c.B),
			fmt.Sprintf("%d pairs of runs, ratios of the rates from %.3g to %.3g", len(ratios), ratios[0], ratios[len(ratios)-1]),
		}
	}
	return o
}

func ms(s measure.Sample, percent float64) float64 {
	return float64(measure.Percentile(s.Latencies, percent)) / float64(time.Millisecond)
}
