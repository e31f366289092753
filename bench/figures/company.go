package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/baseline"
	"github.com/thalo-go/es/bench/internal/measure"
	"github.com/thalo-go/es/bench/internal/server"
	"github.com/thalo-go/es/bench/internal/work"
	"github.com/thalo-go/es/examples/bank/account"
	"github.com/thalo-go/es/postgres"
)

// companyWord starts a process that shares the database with others of its kind. Arguments: URL, number of the process, see company.
const companyWord = "measure-company"

// A company is a number of processes on one database, which run both sides in turn.
type company struct {
	processes int
	callers   int  // of each process, in total
	stores    int  // of each process, which share the callers
	bare      bool // appends of one event instead of commands
	slow      bool // the server has a slow disk
}

const (
	companyPool = 4 // connections of each process and side, divided by its stores
	companyTurn = 2 * time.Second
	companyRuns = 9
	slowFlush   = 2 * time.Millisecond
)

func companyFigures() []figure {
	fast, few := company{processes: 16, callers: 4, stores: 1}, company{processes: 4, callers: 16, stores: 1}
	many := company{processes: 16, callers: 4, stores: 4}
	slowly := func(c company) company { c.slow = true; return c }
	bare := slowly(fast)
	bare.bare = true
	return []figure{
		{"pg-company-16", "commands of 16 processes with 4 callers and 4 connections each, against a textbook transaction in the same shape", atLeast(2.2), fast.figure},
		{"pg-company-4", "the same with 4 processes of 16 callers", atLeast(5), few.figure},
		{"pg-company-16-slow", "16 processes of 4 callers, on a disk whose flush takes 2 ms longer", atLeast(1.5), slowly(fast).figure},
		{"pg-company-4-slow", "4 processes of 16 callers, on the slow disk", atLeast(1.8), slowly(few).figure},
		{"pg-company-64-slow", "16 processes of 4 stores with one caller and one connection each, on the slow disk", atLeast(1.2), slowly(many).figure},
		{"pg-company-16-slow-append", "appends by 16 processes of 4 callers on the slow disk, against one INSERT each", atLeast(1), bare.figure},
		{"pg-company-open", "pg-company-16 while a foreign transaction stays open for two minutes, against without it", atLeast(0.9), fast.open},
	}
}

// arguments are those of measureCompany.
func (c company) arguments(url string, number int) []string {
	return []string{companyWord, url, strconv.Itoa(number), strconv.Itoa(c.callers), strconv.Itoa(c.stores), strconv.FormatBool(c.bare)}
}

// start starts the processes on a new database.
func (c company) start(ctx context.Context, r *round) (url string, processes []*work.Process, err error) {
	if !c.slow {
		url, err = r.session.database(ctx, r)
	} else {
		url, err = r.session.slowDatabase(ctx, r)
	}
	for n := 0; n < c.processes && err == nil; n++ {
		var p *work.Process
		if p, err = work.StartProcess(ctx, c.arguments(url, n)...); err == nil {
			r.cleanup(p.Close)
			processes = append(processes, p)
		}
	}
	return url, processes, err
}

// slowDatabase is database on the server with the slow disk.
func (s *session) slowDatabase(ctx context.Context, r *round) (url string, err error) {
	if s.slow == nil {
		folder, err := os.MkdirTemp("", "slow-disk")
		if err != nil {
			return "", err
		}
		s.slow, err = server.StartSlowPostgres(ctx, folder, slowFlush)
		if err = errors.Join(err, os.RemoveAll(folder)); err != nil { // a running process keeps a library that it has loaded
			return "", err
		}
	}
	url, drop, err := s.slow.Database(ctx)
	if err == nil {
		r.cleanup(drop)
	}
	return url, err
}

// A companyResult is that of a turn of all processes together.
type companyResult struct {
	rate     float64
	p50, p99 time.Duration // the medians of those of the processes
}

func turnOf(processes []*work.Process, side string, length time.Duration) (t companyResult, err error) {
	for _, p := range processes {
		if err := p.Send(side + " " + length.String()); err != nil {
			return t, err
		}
	}
	var units int
	var longest time.Duration
	var p50, p99 []float64
	for _, p := range processes {
		line, err := p.Line()
		if err != nil {
			return t, err
		}
		var n int
		var elapsed time.Duration
		var middle, high int64
		if _, err := fmt.Sscan(line, &n, (*int64)(&elapsed), &middle, &high); err != nil {
			return t, fmt.Errorf("unexpected answer %q of a process: %w", line, err)
		}
		units += n
		longest = max(longest, elapsed)
		p50, p99 = append(p50, float64(middle)), append(p99, float64(high))
	}
	return companyResult{float64(units) / longest.Seconds(), time.Duration(measure.Median(p50)), time.Duration(measure.Median(p99))}, nil
}

// companyTurns returns the length of a turn and the number of turns of each side.
func (s *session) companyTurns() (time.Duration, int) {
	if s.rounds == 1 {
		return s.turn, s.pairs
	}
	return companyTurn, companyRuns
}

// figure compares the two sides in alternating turns.
func (c company) figure(ctx context.Context, s *session) (o outcome, err error) {
	length, runs := s.companyTurns()
	err = s.round(func(r *round) error {
		_, processes, err := c.start(ctx, r)
		if err != nil {
			return err
		}
		var ratios []float64
		results := make(map[string][]companyResult)
		for i := range runs + 1 {
			for _, side := range []string{"ours", "theirs"} {
				t, err := turnOf(processes, side, length)
				if err != nil {
					return err
				}
				results[side] = append(results[side], t)
			}
			if i == 0 { // the first run warms up
				clear(results)
				continue
			}
			ratios = append(ratios, results["ours"][i-1].rate/results["theirs"][i-1].rate)
		}
		o.value = measure.Median(ratios)
		theirs := "textbook"
		if c.bare {
			theirs = "one INSERT each"
		}
		o.details = []string{companyLine("es", results["ours"]), companyLine(theirs, results["theirs"]),
			fmt.Sprintf("%d pairs of runs, ratios of the rates from %.3g to %.3g", len(ratios), slices.Min(ratios), slices.Max(ratios))}
		return nil
	})
	return o, err
}

func companyLine(name string, turns []companyResult) string {
	var rates, p50, p99 []float64
	for _, t := range turns {
		rates, p50, p99 = append(rates, t.rate), append(p50, milliseconds(t.p50)), append(p99, milliseconds(t.p99))
	}
	return fmt.Sprintf("%s\t%.0f/s\tp50 %.3g ms\tp99 %.3g ms", name, measure.Median(rates), measure.Median(p50), measure.Median(p99))
}

// open compares turns while a foreign transaction is open, which keeps the server from removing dead rows, with turns before and after it.
func (c company) open(ctx context.Context, s *session) (o outcome, err error) {
	length, runs := s.companyTurns()
	stay := 2 * time.Minute
	if s.rounds == 1 {
		stay = length
	}
	err = s.round(func(r *round) error {
		url, processes, err := c.start(ctx, r)
		if err != nil {
			return err
		}
		measured := func(n int) (rates []float64, err error) {
			for range n {
				t, err := turnOf(processes, "ours", length)
				if err != nil {
					return nil, err
				}
				rates = append(rates, t.rate)
			}
			return rates, nil
		}
		if _, err := measured(1); err != nil { // warms up
			return err
		}
		without, err := measured(runs)
		if err != nil {
			return err
		}
		foreign, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		r.cleanup(func() error { return foreign.Close(context.WithoutCancel(ctx)) })
		if _, err := foreign.Exec(ctx, "begin isolation level repeatable read; create table foreign_work (n bigint)"); err != nil {
			return err
		}
		if _, err := turnOf(processes, "ours", stay); err != nil {
			return err
		}
		with, err := measured(runs)
		if err != nil {
			return err
		}
		if _, err := foreign.Exec(ctx, "rollback"); err != nil {
			return err
		}
		after, err := measured(runs)
		if err != nil {
			return err
		}
		o.value = measure.Median(with) / measure.Median(append(without, after...))
		o.details = []string{fmt.Sprintf("before %.0f/s\twith the transaction %.0f/s\tafter it %.0f/s", measure.Median(without), measure.Median(with), measure.Median(after))}
		return nil
	})
	return o, err
}

// measureCompany is the task of a process. Each line of its input is a side, "ours" or "theirs", and a duration for which it runs. It
// answers each line with the operations, the time, and the 50th and 99th percentile of the latencies.
func measureCompany(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 5 {
		return fmt.Errorf("usage: %s URL NUMBER CALLERS STORES BARE", companyWord)
	}
	callers, err := strconv.Atoi(args[2])
	stores, err2 := strconv.Atoi(args[3])
	bare, err3 := strconv.ParseBool(args[4])
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	m := member{url: args[0], name: args[1], callers: callers, stores: stores, bare: bare}
	defer m.close()
	if err := m.prepare(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		side, text, _ := strings.Cut(lines.Text(), " ")
		length, err := time.ParseDuration(text)
		if err != nil {
			return err
		}
		sample, err := m.sides[side].For(ctx, length)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, sample.Units, sample.Elapsed.Nanoseconds(), measure.Percentile(sample.Latencies, 50).Nanoseconds(), measure.Percentile(sample.Latencies, 99).Nanoseconds())
	}
	return nil
}

// A member is a process of a company.
type member struct {
	url, name       string
	callers, stores int
	bare            bool
	sides           map[string]measure.Side
	closers         []func() error
}

func (m *member) close() {
	for _, f := range m.closers {
		_ = f() // the process ends
	}
}

// prepare opens the stores and makes the sides.
func (m *member) prepare(ctx context.Context) error {
	separator := "?"
	if strings.Contains(m.url, "?") {
		separator = "&"
	}
	url := fmt.Sprint(m.url, separator, "pool_max_conns=", companyPool/m.stores)
	stores := make([]*postgres.Store, m.stores)
	for i := range stores {
		var err error
		if stores[i], err = postgres.Open(ctx, url); err != nil {
			return err
		}
		m.closers = append(m.closers, stores[i].Close)
	}
	plain, err := baseline.OpenPostgresPool(ctx, m.url, companyPool)
	if err != nil {
		return err
	}
	m.closers = append(m.closers, plain.Close)
	if m.bare {
		m.sides = map[string]measure.Side{
			"ours":   work.Appends("Append", m.named(work.To(stores[0])), m.callers, 1, payload),
			"theirs": work.Appends("one INSERT each", m.named(plain.Insert), m.callers, 1, payload),
		}
		return nil
	}
	ours, err := m.commands(ctx, stores)
	if err != nil {
		return err
	}
	theirs, err := work.Deposits("textbook", m.named(plain.Append), m.callers)
	m.sides = map[string]measure.Side{"ours": ours, "theirs": theirs}
	return err
}

// named makes the streams of a process different from those of the others.
func (m *member) named(to work.Append) work.Append {
	return func(ctx context.Context, stream es.Stream, after es.Version, events []es.Record) error {
		stream.ID += "-" + m.name
		return to(ctx, stream, after, events)
	}
}

// commands returns callers that each deposit on their own account, which is cached.
func (m *member) commands(ctx context.Context, stores []*postgres.Store) (measure.Side, error) {
	execute := make([]work.Execute, m.callers)
	repos := make([]*work.Repo, len(stores))
	for i, store := range stores {
		repos[i] = work.NewRepo(store)
	}
	for caller := range execute {
		on := work.On(repos[caller%len(repos)])
		execute[caller] = func(ctx context.Context, id string, command account.Command) error {
			return on(ctx, id+"-"+m.name, command)
		}
	}
	opened := measure.Side{Callers: m.callers, Op: func(ctx context.Context, caller int) error {
		return execute[caller](ctx, work.AccountID(caller), account.Open{Owner: "Ada"})
	}}
	_, err := opened.For(ctx, 0) // one operation of each caller
	return measure.Side{Name: "Execute", Callers: m.callers, Op: func(ctx context.Context, caller int) error {
		return execute[caller](ctx, work.AccountID(caller), account.Deposit{Amount: 1})
	}}, err
}
