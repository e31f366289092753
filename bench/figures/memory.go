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

// Memory is measured in a process of its own: a C library keeps what it has freed, so that in one that has measured other things before,
// a log could grow into that and nobody would see it. The program runs itself for it, with this word before the arguments of a follower.
const followWord = "measure-follow-memory"

// A growth is how the memory of a process went while it followed a log.
type growth struct {
	Records              int
	Before, Most, After  int64 // bytes, as the system counts them: with garbage, and with what C libraries hold
	HeapBefore, HeapMost int64 // bytes of the Go heap in use
	HeapAfter            int64
}

// followMemory has a process open the log and follow it for some records, and says by how much its memory grew.
func followMemory(ctx context.Context, records int, backend, place string) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	var stdout, stderr bytes.Buffer
	child := exec.CommandContext(ctx, self, followWord, strconv.Itoa(records), backend, place)
	child.Stdout, child.Stderr = &stdout, &stderr
	if err := child.Run(); err != nil {
		return outcome{}, fmt.Errorf("process that follows: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var g growth
	if err := json.Unmarshal(stdout.Bytes(), &g); err != nil {
		return outcome{}, fmt.Errorf("process that follows: %w", err)
	}
	line := func(when string, process, heap int64) string {
		return fmt.Sprintf("%s\t%.1f MB\t%.1f MB", when, megabytes(process), megabytes(heap))
	}
	return outcome{value: megabytes(g.Most - g.Before), details: []string{
		fmt.Sprintf("%d records\tprocess\tGo heap", g.Records),
		line("before", g.Before, g.HeapBefore),
		line("at the highest", g.Most, g.HeapMost),
		line("after collecting", g.After, g.HeapAfter),
	}}, nil
}

// measureFollow is what the process of its own does.
func measureFollow(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: give records, backend, place", followWord)
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

// A closingLog is a log with an end.
type closingLog interface {
	es.Log
	io.Closer
}

// openLog opens the log for the process that follows. A backend adds its case.
func openLog(backend, place string) (closingLog, error) {
	if backend == "sqlite" {
		return openSQLite(place)
	}
	return nil, fmt.Errorf("there is no backend %q", backend)
}

func megabytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
