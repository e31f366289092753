package sqlite_test

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
	"sync"
	"testing"

	"github.com/thalo-go/es"
	"github.com/thalo-go/es/sqlite"
)

// Other processes are this test binary again, told by a variable which role to play. A line on their output is a result.
const roleVariable = "ES_SQLITE_ROLE"

var roles = map[string]func(ctx context.Context, s *sqlite.Store, args []string) error{
	"race":    race,
	"follow":  follow,
	"once":    once,
	"write":   write,
	"measure": measure,
}

// play plays a role: its name, the path of the database, and what else it is to know.
func play(role string) {
	fields := strings.Split(role, "\t")
	s, err := sqlite.Open(fields[1])
	if err == nil {
		err = errors.Join(roles[fields[0]](context.Background(), s, fields[2:]), s.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role, err)
		os.Exit(1)
	}
}

// A child is another process in a role.
type child struct {
	*exec.Cmd
	stdin io.WriteCloser

	mu    sync.Mutex
	lines []string // those that have come so far
	more  chan struct{}
	end   chan struct{} // closed when no more come
}

func start(t *testing.T, role, path string, args ...any) *child {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fields := []string{role, path}
	for _, arg := range args {
		fields = append(fields, fmt.Sprint(arg))
	}
	c := &child{Cmd: exec.CommandContext(t.Context(), executable), more: make(chan struct{}, 1), end: make(chan struct{})}
	// Under the race detector a process rests for a second before it ends, unless it is told not to.
	c.Env = append(os.Environ(), roleVariable+"="+strings.Join(fields, "\t"), "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	c.Stderr = os.Stderr
	if c.stdin, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go c.read(stdout)
	t.Cleanup(func() { c.kill() })
	return c
}

func (c *child) read(stdout io.Reader) {
	defer close(c.end)
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return // what is cut off was not said
		}
		c.mu.Lock()
		c.lines = append(c.lines, strings.TrimSuffix(line, "\n"))
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
}

// said returns what the child has said so far.
func (c *child) said() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.lines)
}

// await waits until the child has said so many lines, or no more come, and returns them.
func (c *child) await(n int) []string {
	for {
		if lines := c.said(); len(lines) >= n {
			return lines
		}
		select {
		case <-c.more:
		case <-c.end:
			return c.said()
		}
	}
}

// tell lets children begin that are ready.
func tell(t *testing.T, children ...*child) {
	t.Helper()
	for _, c := range children {
		if lines := c.await(1); len(lines) != 1 {
			t.Fatal("a process could not open the database")
		}
	}
	for _, c := range children {
		if err := c.stdin.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// finish waits until the child has done its work and returns what it said.
func (c *child) finish(t *testing.T) []string {
	t.Helper()
	<-c.end
	if err := c.Wait(); err != nil {
		t.Fatalf("the other process: %v", err)
	}
	return c.said()
}

// kill ends the child as kill -9 does, if it is still there.
func (c *child) kill() {
	_ = c.Process.Kill() // an error says that it has ended already
	<-c.end
	_ = c.Wait() // its error says that it was killed
}

// say prints a line in one piece, so that a process that is killed leaves no half of one.
func say(values ...any) {
	fmt.Println(values...)
}

// race waits to be told, then appends to the same few streams as everybody else, each event at the version that it expects,
// and says where each came to stand.
func race(ctx context.Context, s *sqlite.Store, args []string) error {
	if err := told(); err != nil {
		return err
	}
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
					say(position, text)
					versions[i]++
					k++
				case !errors.As(err, &conflict):
					errs[i] = err
					return
				default: // another was faster
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

// follow says what it sees until it has seen so many.
func follow(ctx context.Context, s *sqlite.Store, args []string) error {
	n := number(args[0])
	for r, err := range es.Follow(ctx, s, 0, es.Filter{}) {
		if err != nil {
			return err
		}
		say(r.Position, string(r.Data))
		if n--; n == 0 {
			break
		}
	}
	return nil
}

// once waits to be told and appends one event.
func once(ctx context.Context, s *sqlite.Store, _ []string) error {
	if err := told(); err != nil {
		return err
	}
	_, err := s.Append(ctx, at("once", es.AnyVersion, "once"))
	return err
}

// write appends in so many goroutines, one to three events at a time, and says what was acknowledged, until it is killed.
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
				say(position, text)
			}
		}()
	}
	return <-errs
}

// measure appends so many times and says what was acknowledged, and how large the write-ahead log was then. It rests until it is killed.
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
		say(position, text, log.Size())
	}
	_, err := io.ReadAll(os.Stdin)
	return err
}

// several is an append whose last event alone has a text.
func several(writer, k int, text string) []es.Append {
	return []es.Append{at(fmt.Sprint(writer), es.AnyVersion, make([]string, k%3)...), at("acknowledged", es.AnyVersion, text)}
}

// told says that the process is ready and waits for the word.
func told() error {
	say("ready")
	_, err := io.ReadAll(os.Stdin)
	return err
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}
