package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/bench/internal/measure"
)

// Memory is measured in a separate process. C libraries keep freed memory, so growth after other measurements might not
// be visible. The program runs itself with this word before the arguments of a follower.
const followWord = "measure-follow-memory"

// A growth is the memory of a process before, while and after it follows a log.
type growth struct {
	Records              int
	Before, Most, After  int64 // resident bytes, including garbage and memory held by C libraries
	HeapBefore, HeapMost int64 // bytes of the Go heap in use
	HeapAfter            int64
}

// followMemory makes a process open the log and follow it for some records, and returns how much its memory grew.
func followMemory(ctx context.Context, records int, backend, place string) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	var stdout, stderr bytes.Buffer
	child := exec.CommandContext(ctx, self, followWord, strconv.Itoa(records), backend, place)
	child.Stdout, child.Stderr = &stdout, &stderr
	if err := child.Run(); err != nil {
		return outcome{}, fmt.Errorf("following process: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var g growth
	if err := json.Unmarshal(stdout.Bytes(), &g); err != nil {
		return outcome{}, fmt.Errorf("following process: %w", err)
	}
	line := func(when string, process, heap int64) string {
		return fmt.Sprintf("%s\t%.1f MB\t%.1f MB", when, megabytes(process), megabytes(heap))
	}
	return outcome{value: megabytes(g.Most - g.Before), details: []string{
		fmt.Sprintf("%d records\tprocess\tGo heap", g.Records),
		line("before", g.Before, g.HeapBefore),
		line("peak", g.Most, g.HeapMost),
		line("after collecting", g.After, g.HeapAfter),
	}}, nil
}

// measureFollow is the task of the separate process.
func measureFollow(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: %s RECORDS BACKEND PLACE", followWord)
	}
	records, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	measure.Settle()
	g := growth{Records: records, Before: measure.Resident(), HeapBefore: measure.HeapInUse()}
	log, err := openLog(args[1], args[2])
	if err != nil {
		return err
	}
	return errors.Join(g.follow(ctx, log), log.Close(), json.NewEncoder(out).Encode(&g))
}

func (g *growth) follow(ctx context.Context, log es.Log) error {
	seen := 0
	for r, err := range es.Follow(ctx, log, 0, es.Filter{}) {
		if err != nil {
			return err
		}
		if seen++; r.Position != es.Position(seen) {
			return fmt.Errorf("record %d has position %d", seen, r.Position)
		}
		if seen%10_000 == 0 || seen == g.Records {
			g.Most = max(g.Most, measure.Resident())
			g.HeapMost = max(g.HeapMost, measure.HeapInUse())
		}
		if seen == g.Records {
			break
		}
	}
	measure.Settle()
	g.After, g.HeapAfter = measure.Resident(), measure.HeapInUse()
	return nil
}

// A closingLog is a log that must be closed.
type closingLog interface {
	es.Log
	io.Closer
}

// openLog opens the log for the following process. Each backend has a case here.
func openLog(backend, place string) (closingLog, error) {
	if backend == "sqlite" {
		return openSQLite(place)
	}
	return nil, fmt.Errorf("unknown backend %q", backend)
}

func megabytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
