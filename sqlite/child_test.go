package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/internal/test/child"
	"github.com/thalo-go/es/sqlite"
)

// roles are what child processes do with a store. Each line that they print is a result.
var roles = map[string]func(ctx context.Context, s *sqlite.Store, args []string) error{
	"race":    race,
	"follow":  follow,
	"once":    once,
	"write":   write,
	"measure": measure,

	"carelessly": carelessly,
	"early":      early,
}

// children returns the functions of child processes: each opens the database at the path in its first argument and plays a role.
func children() map[string]child.Func {
	funcs := make(map[string]child.Func)
	for name, play := range roles {
		funcs[name] = func(ctx context.Context, args []string) error {
			s, err := sqlite.Open(args[0])
			if err != nil {
				return err
			}
			return errors.Join(play(ctx, s, args[1:]), s.Close())
		}
	}
	return funcs
}

// race waits to be released, then appends to the same few streams as the other processes, each event at the version that it expects,
// and prints the position of each.
func race(ctx context.Context, s *sqlite.Store, args []string) error {
	ctx = child.Ready(ctx)
	name, streams, n := args[0], number(args[1]), number(args[2])
	versions := make([]es.Version, streams)
	var wg sync.WaitGroup
	errs := make([]error, streams)
	for i := range streams {
		wg.Go(func() {
			for k := 0; k < n; {
				text := fmt.Sprint(name, "-", i, "-", k)
				position, err := s.Append(ctx, at(fmt.Sprint(i), versions[i], text))
				var conflict *es.ConflictError
				switch {
				case err == nil:
					child.Say(position, text)
					versions[i]++
					k++
				case !errors.As(err, &conflict):
					errs[i] = err
					return
				default: // another writer was faster
					for r, err := range s.Read(ctx, stream(fmt.Sprint(i)), versions[i]) {
						if err != nil {
							errs[i] = err
							return
						}
						versions[i] = r.Version
					}
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// follow prints the records that it reads until it has read n.
func follow(ctx context.Context, s *sqlite.Store, args []string) error {
	n := number(args[0])
	for r, err := range es.Follow(ctx, s, 0, es.Filter{}) {
		if err != nil {
			return err
		}
		child.Say(r.Position, string(r.Data))
		if n--; n == 0 {
			break
		}
	}
	return nil
}

// once waits to be released and appends one event.
func once(ctx context.Context, s *sqlite.Store, _ []string) error {
	ctx = child.Ready(ctx)
	_, err := s.Append(ctx, at("once", es.AnyVersion, "once"))
	return err
}

// write appends in n goroutines, one to three events per call, and prints what was acknowledged, until it is killed.
func write(ctx context.Context, s *sqlite.Store, args []string) error {
	errs := make(chan error)
	for w := range number(args[0]) {
		go func() {
			for k := 0; ; k++ {
				text := fmt.Sprint(os.Getpid(), "-", w, "-", k)
				position, err := s.Append(ctx, several(w, k, text)...)
				if err != nil {
					errs <- err
					return
				}
				child.Say(position, text)
			}
		}()
	}
	return <-errs
}

// measure appends n times and prints what was acknowledged and the size of the write-ahead log. It then waits until it is killed.
func measure(ctx context.Context, s *sqlite.Store, args []string) error {
	for k := range number(args[0]) {
		text := fmt.Sprint("m-", k)
		position, err := s.Append(ctx, several(0, k, text)...)
		if err != nil {
			return err
		}
		log, err := os.Stat(args[1])
		if err != nil {
			return err
		}
		child.Say(position, text, log.Size())
	}
	<-ctx.Done()
	return nil
}

// several returns an append in which only the last event has a text.
func several(writer, k int, text string) []es.Append {
	return []es.Append{at(fmt.Sprint(writer), es.AnyVersion, make([]string, k%3)...), at("acknowledged", es.AnyVersion, text)}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}
