package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/examples/loans/application"
	"github.com/thalo-go/es/examples/loans/xes"
)

const kind = "application"

// loader sends the lines of a file as commands.
type loader struct {
	repo *es.Repo[application.Application, application.Command, application.Event]
	head es.Position // of the store before the load

	applications   int
	stored, before atomic.Int64 // lines stored by this load and by earlier ones
}

// load sends every line of a file as a command on its application. It processes up to atOnce applications concurrently, and the lines of each
// in order. If the file is damaged, load sends the lines before the damage and returns an error with the line number.
func load(ctx context.Context, log es.Log, file io.Reader, atOnce int) (*loader, error) {
	head, err := es.Head(ctx, log)
	if err != nil {
		return nil, err
	}
	l := &loader{repo: es.NewRepo(log, kind, application.Rules{}, application.Codec), head: head}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce) // also bounds how far the file is read ahead
	var broken error
	for trace, err := range xes.Read(file) {
		var id string
		var lines []line
		if err == nil {
			id, lines, err = linesOf(trace)
		}
		if broken = cmp.Or(err, ctx.Err()); broken != nil {
			break
		}
		l.applications++
		group.Go(func() error { return l.send(ctx, id, lines) })
	}
	if err := group.Wait(); err != nil {
		return l, err
	}
	return l, broken
}

func (l *loader) send(ctx context.Context, id string, lines []line) error {
	for i, line := range lines {
		result, err := l.execute(ctx, id, id+"/"+strconv.Itoa(i), line)
		if err != nil {
			return fmt.Errorf("line %d: application %s: %w", line.number, id, err)
		}
		// A repeated command returns the events of its first execution. If they differ from this line, two lines have the same command ID.
		if len(result.Events) != 1 || !line.is(result.Events[0]) {
			return fmt.Errorf("line %d: application %s: the store has another line in its place, %+v: use an empty store", line.number, id, result.Events)
		}
		if result.Position > l.head {
			l.stored.Add(1)
		} else {
			l.before.Add(1)
		}
	}
	return nil
}

// execute sends one line. If the line breaks a rule, execute sends it again and names the rule, because it has happened nevertheless.
func (l *loader) execute(ctx context.Context, id, commandID string, line line) (es.Result[application.Application, application.Event], error) {
	result, err := l.repo.Execute(ctx, id, line.command(line.Line), es.CommandID(commandID))
	var refusal *es.InvariantError
	if errors.As(err, &refusal) {
		line.Breaks = application.Rule(refusal.Code)
		return l.repo.Execute(ctx, id, line.command(line.Line), es.CommandID(commandID))
	}
	return result, err
}
